// Package expr holds the functions of row and decode expressions.
package expr
