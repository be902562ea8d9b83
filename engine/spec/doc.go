// Package spec reads pipeline.hcl and sources/*.hcl into a validated Pipeline: the language, and nothing else.
package spec
