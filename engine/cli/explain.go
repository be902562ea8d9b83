package cli

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func (e *env) newExplain() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain [CODE | BLOCK]",
		Short: "Explain a code of the plan, such as CV-K07, or a block, such as topic",
		Long: `Explain what a code of the plan means: what happens, why, and what can be done; or what a block of pipeline.hcl, or of
a source's definition (sources/*.hcl), may hold: each attribute with its type, default and limits. Without an argument,
list the codes and the blocks.

Codes are stable: scripts may name them. The class says what a change means for data and service:

  safe        at once, and nothing else happens; such changes have no code
  future      only what is written from now on
  slow        data is rewritten, locked or moved
  risky       the meaning of data, or of running programs, changes
  destroys    data is lost; apply leaves it out without --allow CODE@ADDRESS
  impossible  the server cannot do it; the rest of the plan can be applied`,
		Example: "  cryptoviz explain CV-K01\n  cryptoviz explain rollup\n  cryptoviz " +
			"explain definition.source\n  cryptoviz explain",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				if asJSON {
					out := []explained{}
					for _, c := range provision.Codes() {
						out = append(out, explained(c))
					}
					return writeJSON(e.Stdout, out)
				}
				for _, c := range provision.Codes() {
					e.print("%s  %-10s  %s\n", c.ID, c.Class, c.Title)
				}
				e.print("\n%s\n", fold("Blocks of pipeline.hcl: "+strings.Join(spec.PipelineReference().Kinds(), ", "),
					80))
				if blocks := e.definitionBlocks(); len(blocks) > 0 {
					e.print("\n%s\n", fold("Blocks of sources/*.hcl: "+strings.Join(blocks, ", "), 80))
				}
				return nil
			}
			if file, text := e.reference(args[0]); text != "" {
				if asJSON {
					return writeJSON(e.Stdout, map[string]string{"block": args[0], "file": file, "markdown": text})
				}
				e.print("%s, in %s\n\n%s", strings.TrimPrefix(args[0], definition), file, forTerminal(text))
				if other := definition + args[0]; slices.Contains(e.definitionBlocks(), other) {
					e.print("\nsources/*.hcl has a block of this name, too: cryptoviz explain %s\n", other)
				}
				return nil
			}
			c, known := plan.FindCode(provision.Codes(), args[0])
			if !known {
				return fmt.Errorf("there is no code or block %s: cryptoviz explain lists them", units.Clip(args[0]))
			}
			if asJSON {
				return writeJSON(e.Stdout, explained(c))
			}
			e.print("%s  %s (%s)\n\n%s\n", c.ID, c.Title, c.Class, fold(c.Text, 80))
			if len(c.Choices) > 0 {
				e.print("\nWhat you can do:\n")
			}
			for _, choice := range c.Choices {
				e.print("  - %s\n", strings.ReplaceAll(fold(choice, 76), "\n", "\n    "))
			}
			if c.Class == plan.Destroys && !strings.Contains(strings.Join(c.Choices, " "), "--allow") {
				e.print("\nTo agree: cryptoviz apply --allow %s@ADDRESS\n", c.ID)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print for programs")
	return c
}

// definition is put before the name of a block of sources/*.hcl where pipeline.hcl has one of that name; it may be
// elsewhere.
const definition = "definition."

// definitions is the reference of sources/*.hcl: it lies beside the sources that the program carries.
func (e *env) definitions() spec.Reference {
	if e.Bundle == nil {
		return ""
	}
	text, err := fs.ReadFile(e.Bundle, "sources/README.md")
	if err != nil {
		return ""
	}
	return spec.Reference(text)
}

// definitionBlocks lists the blocks of sources/*.hcl by names that no block of pipeline.hcl has.
func (e *env) definitionBlocks() []string {
	kinds := e.definitions().Kinds()
	for i, kind := range kinds {
		if slices.Contains(spec.PipelineReference().Kinds(), kind) {
			kinds[i] = definition + kind
		}
	}
	return kinds
}

// reference finds what is said about a block, and in which file it stands.
func (e *env) reference(block string) (file, text string) {
	if text = spec.PipelineReference().Section(block); text != "" {
		return "pipeline.hcl", text
	}
	return "sources/*.hcl", e.definitions().Section(strings.TrimPrefix(block, definition))
}

// explained is a code for programs.
type explained struct {
	ID      string     `json:"code"`
	Class   plan.Class `json:"class"`
	Title   string     `json:"title"`
	Text    string     `json:"text"`
	Choices []string   `json:"choices,omitempty"`
}

// fold breaks a text into lines of at most width columns.
func fold(text string, width int) string {
	var out strings.Builder
	used := 0
	for word := range strings.FieldsSeq(text) {
		n := len([]rune(word))
		switch {
		case used == 0:
		case used+1+n > width:
			out.WriteByte('\n')
			used = 0
		default:
			out.WriteByte(' ')
			used++
		}
		out.WriteString(word)
		used += n
	}
	return out.String()
}
