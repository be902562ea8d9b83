package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func (e *env) newInit() *cobra.Command {
	return &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a pipeline to begin with: pipeline.hcl, sources, sql, dashboards",
		Long: `Write the shipped pipeline into DIR (the current folder without one): pipeline.hcl, sources, sql and dashboards,
docker-compose.yml and .env.example. A file that exists already is never overwritten.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			written, kept := 0, 0
			err := fs.WalkDir(e.Bundle, ".", func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				data, err := fs.ReadFile(e.Bundle, path)
				if err != nil {
					return err
				}
				target := filepath.Join(dir, filepath.FromSlash(path))
				if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { //nolint:gosec // a project folder
					return err
				}
				f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // no secrets
				if errors.Is(err, fs.ErrExist) {
					kept++
					return nil
				}
				if err != nil {
					return err
				}
				_, err = f.Write(data)
				written++
				return errors.Join(err, f.Close())
			})
			if err != nil {
				return fmt.Errorf("write the pipeline: %w", err)
			}
			said := fmt.Sprintf("Wrote %s to %s.", count(written, "file"), dir)
			if kept > 0 {
				said += fmt.Sprintf(" %d existed already and were left alone.", kept)
			}
			next := "cryptoviz up"
			if filepath.Clean(dir) != "." {
				next = "cd " + dir + " && " + next
			}
			e.print("%s\nNext: %s   (without a network: %s --simulate)\n", said, next, strings.TrimSpace(next))
			return nil
		},
	}
}
