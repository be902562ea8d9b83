package table

import (
	"context"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// keepRaw is how long a rollup leaves raw rows in the table. No server has it: what the last apply was told is what is
// in force, for the engine deletes no day sooner than that.
const keepRaw = "keep_raw"

// rollup returns the rollup that reads the table, or nil.
func (t *Table) rollup() *spec.Rollup {
	if t.Spec == nil || t.Catalog.Pipeline == nil {
		return nil
	}
	for _, r := range t.Catalog.Pipeline.Rollups {
		if r.From != nil && r.From.Name == t.Spec.Name {
			return r
		}
	}
	return nil
}

// readRawRetention adds to the live state how long raw rows are kept. What no apply was told yet counts as it is
// declared.
func (t *Table) readRawRetention(ctx context.Context, s *plan.State) error {
	r := t.rollup()
	if r == nil || t.rel.Kind != "r" && t.rel.Kind != "p" {
		return nil
	}
	last, err := t.Catalog.Managed(ctx)
	if err != nil {
		return err
	}
	was, known := last[t.Address()]
	keep, set := was.Get(keepRaw)
	switch {
	case set:
		s.Set(plan.Attr{Name: keepRaw, Value: keep.Value})
	case !known && r.KeepRaw > 0:
		s.Set(plan.Attr{Name: keepRaw, Value: units.FormatDuration(r.KeepRaw)})
	}
	return nil
}

// rawRetention assesses another keep_raw: a shorter one deletes days when the rollup runs next.
func (d *tableDiff) rawRetention(ctx context.Context, diff plan.Diff) error {
	r := d.t.rollup()
	was, err := units.ParseDuration(diff.Old)
	if r == nil || err != nil || was <= r.KeepRaw || d.t.Spec.Hypertable == nil ||
		d.t.rel.Column(d.t.Spec.Hypertable.Time) == nil {
		return nil //nolint:nilerr // it was none, and nothing goes
	}
	cut := d.t.Now().UTC().Truncate(24 * time.Hour).Add(-r.KeepRaw)
	column := pg.Ident(d.t.Spec.Hypertable.Time)
	d.recount(codeShorterRaw, false, "SELECT count(*) FROM "+d.quoted()+" WHERE "+column+" < "+
		pg.Literal(cut.Format(time.RFC3339)))
	loss := ddl.RowsLost(0, false, "when rollup "+r.Name+" runs next")
	var from, to *time.Time
	open, err := d.ask(ctx, "SELECT count(*), min("+column+"), max("+column+") FROM "+d.quoted()+" WHERE "+column+" < "+
		pg.Literal(cut.Format(time.RFC3339)), &loss.Count, &from, &to)
	if err != nil {
		return err
	}
	text := "raw rows go, and what the rollup made of them stays"
	switch {
	case open != "":
		text += "; how many is not known: " + string(open)
	case from == nil || to == nil:
		return nil
	default:
		loss.Known = true
		loss.From, loss.To = from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339)
	}
	d.change.Find(codeShorterRaw, keepRaw, "%s", text).Loss = loss
	return nil
}
