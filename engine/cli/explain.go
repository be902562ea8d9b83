package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func (e *env) newExplain() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain [CODE | BLOCK]",
		Short: "Explain a code of the plan, such as CV-K07, or a block, such as topic",
		Long: `Explain what a code of the plan means: what happens, why, and what can be done; or what a block of pipeline.hcl may
hold: each attribute with its type, default and limits. Without an argument, list the codes and the blocks.

Codes are stable: scripts may name them. The class says what a change means for data and service:

  safe        at once, and nothing else happens; such changes have no code
  future      only what is written from now on
  slow        data is rewritten, locked or moved
  risky       the meaning of data, or of running programs, changes
  destroys    data is lost; apply leaves it out without --allow CODE@ADDRESS
  impossible  the server cannot do it; the rest of the plan can be applied`,
		Example: "  cryptoviz explain CV-K01\n  cryptoviz explain rollup\n  cryptoviz explain",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				if asJSON {
					out := []explained{}
					for _, c := range plan.Codes() {
						out = append(out, explained(c))
					}
					return writeJSON(e.Stdout, out)
				}
				for _, c := range plan.Codes() {
					e.print("%s  %-10s  %s\n", c.ID, c.Class, c.Title)
				}
				e.print("\n%s\n", fold("Blocks: "+strings.Join(spec.ReferenceKinds(), ", "), 80))
				return nil
			}
			if text := spec.Reference(args[0]); text != "" {
				if asJSON {
					return writeJSON(e.Stdout, map[string]string{"block": args[0], "markdown": text})
				}
				e.print("%s\n\n%s", args[0], forTerminal(text))
				return nil
			}
			c, known := plan.Explain(args[0])
			if !known {
				return fmt.Errorf("there is no code or block %s: cryptoviz explain lists them", spec.Clip(args[0]))
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
