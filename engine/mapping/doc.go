// Package mapping turns raw records into rows: a source's row expressions, compiled once.
//
// The expressions are HCL. Compile walks each one and builds a closure over a frame: the values that rawjson.Tree found in
// one record, in one pass over its bytes. What the compiler does not know is evaluated by HCL itself, over just the paths
// that the expression reads: slower, never wrong. Rows come out in PostgreSQL's binary COPY encoding.
//
// "" and null and a path that leads nowhere are missing: null. null in a column that may not be null, a text where a number
// is wanted, a time out of range: these are poison, an *Error, and the rows stay as they were.
//
//	expr.go     HCL expression -> closure        value.go   what a closure returns
//	program.go  record -> row                    encode.go  value -> binary COPY
//	decode.go   reply -> records                 slow.go    evaluation by HCL
package mapping
