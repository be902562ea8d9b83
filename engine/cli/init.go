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
docker-compose.yml and .env.example. When one of these files exists already, nothing is written.`,
		Example: "  cryptoviz init my-pipeline",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			files, err := bundleFiles(e.Bundle)
			if err != nil {
				return err
			}
			if err := refuseExisting(dir, files); err != nil {
				return err
			}
			for _, name := range files {
				if err := writeNew(e.Bundle, dir, name); err != nil {
					return fmt.Errorf("write the pipeline: %w", err)
				}
			}
			next, folder := "cryptoviz up", "this folder"
			if filepath.Clean(dir) != "." {
				next, folder = "cd "+shellWord(dir)+" && "+next, dir
			}
			e.print("Wrote %s to %s.\nNext: %s   (without a network: %s --simulate)\n", count(len(files), "file"), folder, next, next)
			e.print("What the files may hold: cryptoviz explain, and sources/README.md\n")
			return nil
		},
	}
}

func bundleFiles(bundle fs.FS) ([]string, error) {
	var out []string
	err := fs.WalkDir(bundle, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, path)
		}
		return err
	})
	return out, err
}

// refuseExisting looks at all files before the first is written: a mix of two pipelines would be neither.
func refuseExisting(dir string, files []string) error {
	var taken []string
	for _, name := range files {
		if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name))); err == nil {
			taken = append(taken, name)
		}
	}
	if len(taken) == 0 {
		return nil
	}
	names := strings.Join(taken[:min(len(taken), 3)], ", ")
	if len(taken) > 3 {
		names += fmt.Sprintf(" and %d more", len(taken)-3)
	}
	return fmt.Errorf("%s has %s already: nothing was written. Name another folder: cryptoviz init DIR", dir, names)
}

func writeNew(bundle fs.FS, dir, name string) error {
	data, err := fs.ReadFile(bundle, name)
	if err != nil {
		return err
	}
	target := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
