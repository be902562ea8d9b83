package table

import (
	"context"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// features tells what is declared and this server does not have.
func (d *tableDiff) features() {
	h, caps := d.t.Spec.Hypertable, d.t.live.Caps
	if h == nil {
		return
	}
	var asked []string
	if h.Retention > 0 {
		asked = append(asked, "retention")
	}
	if h.Columnstore != nil {
		asked = append(asked, "columnstore")
	}
	switch {
	case d.t.layout() == catalog.Native && !caps.Hypertables():
		if p := d.t.Catalog.Pipeline; p != nil && p.Database.OnMissing == "error" {
			d.change.Find(CodeNoTimescaleDB, "layout", "%s: %s needs it", caps.Name(),
				strings.Join(append([]string{"hypertable"}, asked...), ", "))
		} else if len(asked) > 0 {
			d.change.Note("%s: no %s; old days go only by a rollup with keep_raw", caps.Name(),
				strings.Join(asked, ", no "))
		}
	case d.t.layout() == catalog.Native && (len(asked) > 0 || d.change.Action != plan.None):
		d.change.Note("it keeps its native partitions, which were there before TimescaleDB: to have a hypertable, " +
			"rename it aside, apply, and copy the rows")
	case d.t.layout() == catalog.Hyper && d.t.degraded() && len(asked) > 0:
		d.change.Note("%s: no %s; old days go only by a rollup with keep_raw", caps.Name(),
			strings.Join(asked, ", no "))
	case d.t.layout() == catalog.Hyper && !caps.Community() && !d.t.degraded():
		for _, attr := range asked {
			d.change.Find(codeEdition, attr, "this server has the Apache edition (timescaledb.license = apache)")
		}
	}
}

// leftover tells what a table has of the time before the server had the Apache edition.
func (d *tableDiff) leftover(ctx context.Context) error {
	if d.t.rel == nil || d.t.rel.Hyper == nil || d.t.live.Caps.Edition != "apache" {
		return nil
	}
	in, err := d.stored(ctx)
	if err != nil {
		return err
	}
	if in.chunks > 0 {
		d.change.Note("table.%s: %d of %d chunks are in the columnstore, which the Apache "+
			"edition (timescaledb.license = apache) can neither read nor write", d.t.name(), in.chunks, in.all)
	}
	var policies []string
	if d.t.rel.Hyper.Retention != nil {
		policies = append(policies, "retention")
	}
	if d.t.rel.Hyper.Conversion != nil {
		policies = append(policies, "columnstore")
	}
	if len(policies) > 0 {
		d.change.Note("table.%s: its policies (%s) stay, and the Apache edition does not run them", d.t.name(),
			strings.Join(policies, ", "))
	}
	return nil
}

// retentionAgainstOthers compares the wanted retention with what needs the rows longer.
func (d *tableDiff) retentionAgainstOthers() {
	h := d.t.Spec.Hypertable
	if h == nil || h.Retention == 0 || d.t.layout() != catalog.Hyper {
		return
	}
	declared := map[string]bool{}
	if p := d.t.Catalog.Pipeline; p != nil {
		for _, a := range p.Aggregates {
			declared[a.Name] = true
			if a.From != nil && a.From.Name == d.t.name() && a.Refresh != nil && a.Refresh.Start > h.Retention {
				d.change.Find(codeRetentionInRefresh, "retention",
					"aggregate.%s refreshes the last %s, and retention keeps %s", a.Name,
					units.FormatDuration(a.Refresh.Start), units.FormatDuration(h.Retention))
			}
		}
		for _, r := range p.Rollups {
			if r.From != nil && r.From.Name == d.t.name() && h.Retention < r.KeepRaw+2*24*time.Hour {
				d.change.Find(codeRetentionBeforeRollup, "retention",
					"rollup %s needs each day's rows until it has run, and keeps them %s; retention is %s", r.Name,
					units.FormatDuration(r.KeepRaw), units.FormatDuration(h.Retention))
			}
		}
	}
	for name, a := range d.t.live.Aggregates {
		if d.t.rel == nil || declared[name] || a.FromSchema != d.t.rel.Schema || a.FromName != d.t.rel.Name {
			continue
		}
		for _, j := range a.Refresh {
			switch {
			case j.Start == nil:
				d.change.Find(codeRetentionInRefresh, "retention",
					"aggregate.%s refreshes all of history, and retention keeps %s", name,
					units.FormatDuration(h.Retention))
			case *j.Start > h.Retention:
				d.change.Find(codeRetentionInRefresh, "retention",
					"aggregate.%s refreshes the last %s, and retention keeps %s", name, units.FormatDuration(*j.Start),
					units.FormatDuration(h.Retention))
			}
		}
	}
}

// retention assesses another retention policy. Policies are set exactly: if_not_exists would leave another value in
// force.
func (d *tableDiff) retention(ctx context.Context) error {
	if d.t.Spec.Hypertable == nil || d.t.layout() != catalog.Hyper || !d.t.live.Caps.Community() {
		return nil
	}
	want, caps := d.t.Spec.Hypertable.Retention, d.t.live.Caps
	var have *catalog.Job
	if d.t.rel.Hyper != nil {
		have = d.t.rel.Hyper.Retention
	}
	if want == 0 {
		d.step(ddl.Policies, false, "%s", ddl.RemoveRetentionSQL(d.t.name(), caps))
		return nil
	}
	d.retentionAgainstOthers()
	runs := "when the new policy runs: within a minute of apply"
	switch {
	case have != nil && have.DropAfter != nil:
		d.step(ddl.Policies, false, "%s", ddl.AlterPolicySQL(have, "drop_after", want, caps))
		runs = "when the policy runs next"
		if have.Next != nil && have.Scheduled {
			runs += ": " + have.Next.UTC().Format("2006-01-02 15:04 UTC")
		}
	default:
		if have != nil {
			d.step(ddl.Policies, false, "%s", ddl.RemoveRetentionSQL(d.t.name(), caps))
		}
		d.step(ddl.Policies, false, "%s", ddl.AddRetentionSQL(d.t.name(), want, caps))
	}
	return d.retentionLoss(ctx, want, runs)
}

// retentionLoss tells what would go. Of a table that is to become a hypertable, the old rows count.
func (d *tableDiff) retentionLoss(ctx context.Context, want time.Duration, runs string) error {
	loss := ddl.RowsLost(0, false, runs)
	var from, to *time.Time
	var open unknown
	var err error
	older := pg.Ident(d.t.Spec.Hypertable.Time) + " < now() - " + pg.Interval(want)
	switch {
	case d.t.rel.Hyper != nil:
		name := pg.Literal(pg.Ident(d.t.rel.Schema, d.t.rel.Name)) + "::regclass"
		open, err = d.ask(ctx, `SELECT count(*)::int, min(c.range_start), max(c.range_end), coalesce(sum(s.total_bytes), 0)::bigint
			FROM timescaledb_information.chunks c LEFT JOIN `+d.t.live.Caps.Function("chunks_detailed_size")+`(`+name+`) s ON s.chunk_schema = c.chunk_schema AND s.chunk_name = c.chunk_name
			WHERE c.hypertable_schema = `+pg.Literal(d.t.rel.Schema)+` AND c.hypertable_name = `+pg.Literal(d.t.rel.Name)+` AND c.range_end <= now() - `+pg.Interval(want),
			&loss.Chunks, &from, &to, &loss.Bytes)
		d.recount(codeRetentionDrops, false, "SELECT count(*) FROM "+d.quoted()+" WHERE "+pg.Ident(d.t.rel.Hyper.Time)+
			" < (SELECT max(range_end) FROM timescaledb_information.chunks WHERE hypertable_schema = "+
			pg.Literal(d.t.rel.Schema)+
			" AND hypertable_name = "+pg.Literal(d.t.rel.Name)+" AND range_end <= now() - "+pg.Interval(want)+")")
		if loss.Chunks > 0 {
			older = pg.Ident(d.t.rel.Hyper.Time) + " < " + pg.Literal(to.UTC().Format(time.RFC3339Nano))
		}
	case d.t.rel.Column(d.t.Spec.Hypertable.Time) == nil: // it is new, or renamed
		return nil
	default:
		d.recount(codeRetentionDrops, false, "SELECT count(*) FROM "+d.quoted()+" WHERE "+older)
		open, err = d.ask(ctx, "SELECT min("+pg.Ident(d.t.Spec.Hypertable.Time)+"), max("+
			pg.Ident(d.t.Spec.Hypertable.Time)+") FROM "+d.quoted()+" WHERE "+older, &from, &to)
	}
	switch {
	case err != nil:
		return err
	case open != "":
		d.change.Find(codeRetentionDrops, "retention", "how much is older than %s, and goes, is not known: %s; %s",
			units.FormatDuration(want), open, runs).Loss = loss
		return nil
	case from == nil || to == nil:
		d.change.Find(codeRetentionSet, "retention", "no chunk is older than %s", units.FormatDuration(want))
		return nil
	}
	if open, err = d.ask(ctx, "SELECT count(*) FROM "+d.quoted()+" WHERE "+older, &loss.Count); err != nil {
		return err
	}
	loss.Known = open == ""
	rows := humanize.Comma(loss.Count) + " rows"
	if open != "" {
		rows = "an unknown number of rows"
	}
	loss.From, loss.To = from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339)
	text := rows + " older than " + units.FormatDuration(want) + " go"
	if loss.Chunks > 0 {
		text = humanize.Comma(int64(loss.Chunks)) + " chunks go, with " + rows + ", " + humanize.IBytes(uint64(max(loss.Bytes, 0))) //nolint:gosec // not negative
	}
	d.change.Find(codeRetentionDrops, "retention", "%s (%s .. %s), %s", text, loss.From, loss.To, runs).Loss = loss
	return nil
}

// columnstore assesses its three attributes together.
func (d *tableDiff) columnstore(ctx context.Context) error {
	_, policy := d.change.Diff("columnstore")
	_, segmentDiffers := d.change.Diff("columnstore segment_by")
	_, orderDiffers := d.change.Diff("columnstore order_by")
	if !policy && !segmentDiffers && !orderDiffers || d.t.Spec.Hypertable == nil || d.t.layout() != catalog.Hyper ||
		!d.t.live.Caps.Community() {
		return nil
	}
	in, err := d.stored(ctx)
	if err != nil {
		return err
	}
	h, caps, want := d.t.rel.Hyper, d.t.live.Caps, d.t.Spec.Hypertable.Columnstore
	if h == nil {
		h = &catalog.Hypertable{}
	}
	if want == nil {
		d.step(ddl.Policies, false, "%s", ddl.RemoveConversionSQL(d.t.name(), caps))
		if in.chunks == 0 {
			d.step(ddl.Policies, false, "%s", ddl.ColumnstoreOffSQL(d.t.name(), caps))
		}
		d.change.Find(codeColumnstore, "columnstore", "the %d chunks in the columnstore stay there, and no more follow",
			in.chunks)
		return nil
	}
	if !h.Columnar || segmentDiffers || orderDiffers {
		var segmentBy, orderBy []string // nil: as it is
		if segmentDiffers || len(want.SegmentBy) > 0 {
			segmentBy = append([]string{}, want.SegmentBy...)
		}
		if len(want.OrderBy) > 0 {
			orderBy = want.OrderBy
		} else if orderDiffers {
			if caps.AtLeast(2, 22) {
				d.step(ddl.Policies, false, "ALTER TABLE %s RESET (timescaledb.orderby)", d.quoted())
			} else { // what TimescaleDB chose by itself until then
				orderBy = []string{d.t.Spec.Hypertable.Time + " DESC"}
			}
		}
		d.step(ddl.Policies, false, "%s", ddl.ColumnstoreSettingsSQL(d.t.name(), segmentBy, orderBy, caps))
		if in.chunks > 0 {
			attr := "columnstore segment_by"
			if !segmentDiffers {
				attr = "columnstore order_by"
			}
			d.change.Find(codeColumnstore, attr, "the %d chunks in the columnstore stay as they are", in.chunks)
		}
	}
	switch {
	case !policy:
		return nil
	case h.Conversion != nil && h.Conversion.After != nil:
		d.step(ddl.Policies, false, "%s", ddl.AlterPolicySQL(h.Conversion, "compress_after", want.After, caps))
	default:
		if h.Conversion != nil {
			d.step(ddl.Policies, false, "%s", ddl.RemoveConversionSQL(d.t.name(), caps))
		}
		d.step(ddl.Policies, false, "%s", ddl.AddConversionSQL(d.t.name(), want.After, caps))
	}
	var old int
	if d.t.rel.Hyper != nil {
		err = d.t.Catalog.QueryRow(ctx,
			"SELECT count(*)::int FROM timescaledb_information.chunks WHERE hypertable_schema = $1 AND hypertable_name = $2 AND NOT is_compressed AND range_end <= now() - "+pg.Interval(want.After),
			d.t.rel.Schema, d.t.rel.Name).Scan(&old)
	}
	if err == nil && old > 0 {
		d.change.Find(codeColumnstore, "columnstore",
			"%d chunks are older than %s: they are converted when the policy runs; rows in them stay, and changing them costs more", old, units.FormatDuration(want.After))
	}
	return err
}
