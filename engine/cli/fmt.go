package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

func (e *env) newFmt() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "fmt [PATH...]",
		Short: "Rewrite the HCL files in the canonical form",
		Long: `Rewrite HCL files in the canonical form, and print the names of those that changed. Without a PATH: pipeline.hcl
and sources/*.hcl beside it. A folder means the .hcl files in it and below. "-" reads standard input and writes
standard output. A file with a syntax error is left as it is.`,
		Example: "  cryptoviz fmt\n  cryptoviz fmt --check sources",
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := e.hclFiles(args)
			if err != nil {
				return err
			}
			changed, broken := 0, false
			for _, name := range files {
				did, err := e.format(name, check)
				if err != nil {
					broken = true
					e.note("Error: %v", err)
				}
				if did {
					changed++
				}
			}
			if broken || check && changed > 0 {
				return exit(1)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false, "change nothing; the exit status is 1 when a file is not in the canonical form")
	return c
}

func (e *env) hclFiles(args []string) ([]string, error) {
	if len(args) == 0 {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(e.file), "sources", "*.hcl"))
		return append([]string{e.file}, files...), err
	}
	var out []string
	for _, arg := range args {
		if arg == "-" {
			out = append(out, arg)
			continue
		}
		err := filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && (path == arg || strings.HasSuffix(path, ".hcl")) {
				out = append(out, path)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", arg, err)
		}
	}
	return out, nil
}

// format rewrites one file in one step, keeping its permissions.
func (e *env) format(name string, check bool) (changed bool, err error) {
	var src []byte
	if name == "-" {
		var buf bytes.Buffer
		_, err = buf.ReadFrom(e.Stdin)
		src = buf.Bytes()
	} else {
		src, err = readFile(name)
	}
	if err != nil {
		return false, err
	}
	if diags := spec.Prescan(src, name); diags.HasErrors() {
		return false, errors.Join(diags.Errs()...)
	}
	if _, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos); diags.HasErrors() {
		return false, errors.Join(diags.Errs()...)
	}
	out := hclwrite.Format(src)
	changed = !bytes.Equal(src, out)
	if name == "-" && !check {
		_, err = e.Stdout.Write(out)
		return changed, err
	}
	if !changed {
		return false, nil
	}
	e.print("%s\n", name)
	if check {
		return true, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return true, err
	}
	tmp := name + ".new"
	if err := os.WriteFile(tmp, out, info.Mode().Perm()); err != nil {
		return true, err
	}
	return true, os.Rename(tmp, name)
}
