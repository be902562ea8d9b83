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
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("write the pipeline: %w", err)
			}
			root, err := os.OpenRoot(dir)
			if err != nil {
				return fmt.Errorf("write the pipeline: %w", err)
			}
			defer func() { _ = root.Close() }()
			if err := refuseExisting(root, dir, files); err != nil {
				return err
			}
			for _, name := range files {
				data, err := fs.ReadFile(e.Bundle, name)
				if err == nil {
					err = writeInto(root, name, data)
				}
				if err != nil {
					return fmt.Errorf("write the pipeline: %w", err)
				}
			}
			next, folder := "cryptoviz up", "this folder"
			if filepath.Clean(dir) != "." {
				next, folder = "cd "+shellWord(dir)+" && "+next, dir
			}
			e.print("Wrote %s to %s.\nNext: %s   (without a network: %s --simulate)\n", count(len(files), "file"),
				folder, next, next)
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
func refuseExisting(root *os.Root, dir string, files []string) error {
	var taken []string
	for _, name := range files {
		_, err := root.Lstat(filepath.FromSlash(name))
		switch {
		case err == nil:
			taken = append(taken, name)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("write the pipeline: %w. Nothing was written", leading(err))
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
