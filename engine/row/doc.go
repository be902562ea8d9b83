// Package row turns records into rows: a source's row expressions, compiled once by package expr. Rows come out in
// PostgreSQL's binary COPY encoding.
//
// "" and null and a path that leads nowhere are missing: null. null in a column that may not be null, a text where a
// number is wanted, a time out of range: these are poison, an *Error, and the rows stay as they were.
package row
