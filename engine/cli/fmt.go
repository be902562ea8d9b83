package cli

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/terminal"
)

func (e *env) newFmt() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "fmt [PATH...]",
		Short: "Rewrite the HCL files in the canonical form",
		Long: `Rewrite HCL files in the canonical form, and print the names of those that changed. Without a PATH: pipeline.hcl
and sources/*.hcl beside it. A folder means the .hcl files in it and below; what begins with a dot is left out. "-"
reads standard input and writes standard output. A file with a syntax error is left as it is.`,
		Example: "  cryptoviz fmt\n  cryptoviz fmt --check sources",
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := e.hclFiles(args)
			if err != nil {
				return err
			}
			changed, broken := 0, 0
			for _, name := range files {
				did, err := e.format(name, check)
				if err != nil {
					broken++
					e.note("Error: %v", err)
				}
				if did {
					changed++
				}
			}
			switch {
			case broken > 0:
				return exit(1)
			case check && changed > 0:
				return fmt.Errorf("not in the canonical form: %s. Without --check, cryptoviz fmt rewrites them",
					count(changed, "file"))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false,
		"change nothing; the exit status is 1 when a file is not in the canonical form")
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
			switch {
			case err != nil:
				return err
			case path != arg && strings.HasPrefix(d.Name(), "."):
				if d.IsDir() {
					return fs.SkipDir
				}
			case !d.IsDir() && (path == arg || strings.HasSuffix(path, ".hcl")):
				out = append(out, path)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list the files of %s: %w", arg, err)
		}
	}
	return out, nil
}

// format rewrites one file, or says that it would.
func (e *env) format(name string, check bool) (changed bool, err error) {
	var src []byte
	shown := name
	if name == "-" {
		shown = "standard input"
		src, err = io.ReadAll(io.LimitReader(e.Stdin, limits.MaxFile+1))
	} else {
		src, err = readFile(name)
	}
	if err != nil {
		return false, err
	}
	if diags := load.Syntax(src, shown); diags.HasErrors() {
		if err := diags.Write(terminal.Draw(e.Stderr), e.color(e.Stderr), e.width(e.Stderr)); err != nil {
			return false, err
		}
		return false, fmt.Errorf("%s cannot be read: it is left as it is", shown)
	}
	out := hclwrite.Format(src)
	changed = !bytes.Equal(src, out)
	switch {
	case name == "-" && !check:
		_, err = e.Stdout.Write(out)
		return changed, err
	case !changed:
		return false, nil
	}
	e.print("%s\n", shown)
	if check {
		return true, nil
	}
	return true, replace(name, out)
}

// replace gives a file, or the file that a link means, another content in one step. Its permissions stay.
func replace(name string, content []byte) (err error) {
	name, err = filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Chmod(info.Mode().Perm())
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	return err
}
