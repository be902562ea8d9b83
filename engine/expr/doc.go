// Package expr evaluates the expressions of row and decode blocks.
//
// The expressions are HCL. A Compiler walks each one and builds a closure over a Frame: the values that rawjson.Tree
// found in one record, in one pass over its bytes. What the compiler does not know is evaluated by HCL itself, over
// just the paths that the expression reads: slower, never wrong.
//
//	compile*.go   HCL expression -> closure         value.go      what a closure returns
//	functions.go  the functions, as HCL calls them  reference.go  evaluation by HCL
package expr
