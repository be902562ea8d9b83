package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/terminal"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func (e *env) newImport() *cobra.Command {
	var write bool
	c := &cobra.Command{
		Use:   "import [ADDRESS…]",
		Short: "Write HCL for objects that exist already, and adopt them",
		Long: `Print the blocks that declare objects as they are. With --write the blocks are added to pipeline.hcl, the JSON of a
dashboard goes to dashboards/NAME.json, and the objects are adopted: apply manages them from then on. Nothing about the
objects themselves is changed, and the plan after it is empty.

An ADDRESS is topic.NAME, table.NAME, view.NAME, aggregate.NAME, role.NAME, or, in Grafana, folder.UID, datasource.UID,
dashboard.UID and alert.UID. Without one: list what exists and pipeline.hcl does not declare.`,
		Example: `  cryptoviz import                                        what could be imported
  cryptoviz import topic.legacy_ticks table.trades        how their blocks would look
  cryptoviz import --write topic.legacy_ticks             write the block, and adopt the topic`,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := e.stack(cmd.Context())
			if err != nil {
				return err
			}
			defer w.close()
			if len(args) == 0 {
				return w.listUnmanaged(cmd.Context())
			}
			blocks, err := w.blocks(cmd.Context(), args)
			if err != nil {
				return err
			}
			if !write {
				for _, b := range blocks {
					e.print("%s\n", b.HCL)
					for _, name := range slices.Sorted(maps.Keys(b.Files)) {
						e.note("Note: --write would also write %s (%d bytes).", name, len(b.Files[name]))
					}
				}
				return nil
			}
			addresses, err := w.writeBlocks(blocks)
			if err != nil {
				return err
			}
			for _, b := range blocks {
				for _, name := range slices.Sorted(maps.Keys(b.Files)) {
					e.print("%s: written to %s\n", b.Address, name)
				}
			}
			e.print("%s: %s added\n", e.file, count(len(blocks), "block"))
			return e.adopt(cmd.Context(), addresses)
		},
	}
	c.Flags().BoolVar(&write, "write", false, "add the blocks to pipeline.hcl, and adopt the objects")
	return c
}

func (w *openStack) listUnmanaged(ctx context.Context) error {
	found, err := w.plan(ctx, nil)
	if err != nil {
		return err
	}
	for _, address := range found.Unmanaged {
		w.env.print("%s\n", plan.Visible(address))
	}
	if some := w.env.noteLeftOut(found); len(found.Unmanaged) == 0 && !some {
		w.env.note("Everything that exists is declared.")
	}
	return unread(found)
}

func (w *openStack) blocks(ctx context.Context, addresses []string) ([]provision.Imported, error) {
	var out []provision.Imported
	for i, address := range addresses {
		if slices.Contains(addresses[:i], address) {
			return nil, fmt.Errorf("%s is named twice", address)
		}
		if block := w.stack.Declared(address); block != "" {
			return nil, fmt.Errorf("%s is declared already: cryptoviz show %s tells how it differs, and "+
				"apply adopts it", block, block)
		}
		b, err := w.stack.Import(ctx, address)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// writeBlocks adds blocks to pipeline.hcl and writes their files. Either all of it is done, and the pipeline is valid,
// or everything is as before.
func (w *openStack) writeBlocks(blocks []provision.Imported) (addresses []string, err error) {
	before, err := os.ReadFile(w.env.file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", w.env.file, err)
	}
	root, err := os.OpenRoot(filepath.Dir(w.env.file))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	text := bytes.TrimRight(before, "\n")
	var made []string
	defer func() {
		if err == nil {
			return
		}
		err = errors.Join(err, replaceFile(w.env.file, before))
		for _, name := range made {
			err = errors.Join(err, root.Remove(filepath.FromSlash(name)))
		}
	}()
	for _, b := range blocks {
		text = append(append(text, "\n\n"...), strings.TrimSpace(b.HCL)...)
		addresses = append(addresses, b.Address)
		for _, name := range slices.Sorted(maps.Keys(b.Files)) {
			if err := writeInto(root, name, b.Files[name]); err != nil {
				return nil, fmt.Errorf("write %s: %w", name, err)
			}
			made = append(made, name)
		}
	}
	if err := replaceFile(w.env.file, append(hclwrite.Format(text), '\n')); err != nil {
		return nil, err
	}
	if _, err := w.env.load(); err != nil {
		return nil, fmt.Errorf("with the new blocks %w; it is as before", err)
	}
	return addresses, nil
}

// adopt sets our mark on objects that agree with their new blocks.
func (e *env) adopt(ctx context.Context, addresses []string) error {
	w, err := e.stack(ctx)
	if err != nil {
		return err
	}
	defer w.close()
	found, err := w.plan(ctx, nil)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(found.Changes, func(c plan.Change) bool {
		return c.Kind() == "engine" && c.Action == plan.Create
	}) {
		e.note("Note: the ledger comes with the first cryptoviz apply, which adopts them.")
		return nil
	}
	found.Changes = slices.DeleteFunc(found.Changes, func(c plan.Change) bool {
		return !slices.Contains(addresses, c.Address)
	})
	if found.Pending() > 0 {
		if err := found.Print(terminal.Draw(e.Stdout), e.style(false)); err != nil {
			return err
		}
		return fmt.Errorf("written to %s, and not adopted: %s as the block says; see above, then cryptoviz apply",
			e.file, differ(found.Pending()))
	}
	return w.apply(ctx, "import", found, plan.Agree(found), provision.Options{})
}

func differ(n int) string {
	if n == 1 {
		return "1 object is not"
	}
	return fmt.Sprintf("%d objects are not", n)
}

// replaceFile writes a file in one step and keeps its mode.
func replaceFile(name string, text []byte) error {
	mode := os.FileMode(0o644)
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".pipeline-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
