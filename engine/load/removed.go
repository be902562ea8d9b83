package load

import (
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// removed reads removed { object = topic.legacy }: the object is deleted by the next apply.
func (l *loader) removed(raw *hcl.Block, seen map[string]hcl.Range) {
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs([]string{"object"})}, l.ctx)
	a := b.content.Attributes["object"]
	if a == nil {
		return
	}
	r := &spec.Removed{Range: b.rng}
	r.Kind, r.Name = reference(a.Expr)
	switch {
	case r.Name == "":
		l.fail(a.Expr.Range(), "Not a reference", "Name what is to be deleted: object = topic.legacy, without quotes.")
		return
	case !slices.Contains(spec.Kinds, r.Kind):
		l.fail(a.Expr.Range(), "Unknown kind", "%q cannot be deleted by a removed block.%s", r.Kind,
			diag.Suggest(r.Kind, spec.Kinds))
		return
	case !nameForm.MatchString(r.Name):
		l.fail(a.Expr.Range(), "Not a name", "%q is no name of an object of a pipeline.", units.Clip(r.Name))
		return
	}
	if first, twice := seen[r.Address()]; twice {
		l.fail(b.rng, "Declared twice", "%s is removed already, at line %d.", r.Address(), first.Start.Line)
		return
	}
	seen[r.Address()] = b.rng
	l.p.Removed = append(l.p.Removed, r)
}

// checkRemoved refuses a removed block for what is still declared.
func (l *loader) checkRemoved() {
	declared := map[string]hcl.Range{}
	for _, b := range l.p.Blocks() {
		declared[b.Address()] = b.Range
	}
	for _, r := range l.p.Removed {
		if at, still := declared[r.Address()]; still {
			l.fail(r.Range, "Removed and declared", "%s is declared at line %d: delete that block, or this one.",
				r.Address(), at.Start.Line)
		}
	}
}
