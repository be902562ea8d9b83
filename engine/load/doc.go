// Package load reads pipeline.hcl and sources/*.hcl into a validated spec.Pipeline: the language, and nothing else.
//
// A file goes through limits.Prescan, which keeps the parser from falling; the parser; and the block readers, one file
// a block. A value goes through evaluate: its names and functions are checked, guards bound its work, and what comes
// from the environment keeps a mark, so that no message shows it. Every mistake is a diagnostic, and reading goes on
// after it.
package load
