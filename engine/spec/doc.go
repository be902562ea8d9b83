// Package spec holds the types of a pipeline and of its source definitions, and writes blocks of the language. It reads
// no file: that is package load.
package spec
