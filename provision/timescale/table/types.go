package table

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// lossless lists conversions that keep every value, so that none need be looked at.
var lossless = map[string][]string{
	"smallint": {"integer", "bigint", "numeric", "double precision", "text"},
	"integer":  {"bigint", "numeric", "double precision", "text"},
	"bigint":   {"numeric", "text"},
	"real":     {"double precision"},
	"boolean":  {"text"},
}

// retype assesses another type for a column, and adds its statement.
func (d *tableDiff) retype(ctx context.Context, w *spec.Column, l *catalog.Column) error {
	attr := "column " + w.Name
	if d.isTime(l) {
		d.change.Find(codeTimeColumn, attr, "%s is the time column", l.Name)
		return nil
	}
	if err := d.blockedByDependents(ctx, l, attr); err != nil {
		return err
	}
	if blocked, err := d.blockedByColumnstore(ctx, attr); err != nil || blocked {
		return err
	}
	s, err := d.size(ctx)
	if err != nil {
		return err
	}
	d.step(ddl.AlteringColumns, false, "SET LOCAL TimeZone = 'UTC'") // of times that become texts, and back
	d.step(ddl.AlteringColumns, true, "ALTER TABLE %s ALTER COLUMN %s TYPE %s USING %s::%s", d.quoted(),
		pg.Ident(w.Name), w.Type, pg.Ident(w.Name), w.Type)
	there, back, err := d.casts(ctx, l.Type, string(w.Type))
	if err != nil {
		return err
	}
	if !there {
		d.change.Find(codeTypeFails, attr, "there is no conversion from %s to %s", l.Type, w.Type)
		return nil
	}
	base, _, _ := strings.Cut(l.Type, "(") // numeric(18,8) fits into numeric, character varying(9) into text
	kept := slices.Contains(lossless[l.Type], string(w.Type)) || base == string(w.Type) ||
		base == "character varying" && w.Type == spec.Text
	if !kept {
		d.recountChanged(l, w, back)
	}
	if s.empty {
		return nil
	}
	var changed, failing int64
	var open unknown
	if !kept {
		if changed, failing, open, err = d.convert(ctx, l, w, back); err != nil {
			return err
		}
	}
	switch {
	case failing > 0:
		d.change.Find(codeTypeFails, attr, "%s values of %s are no %s", humanize.Comma(failing), l.Name, w.Type)
	case changed > 0:
		d.change.Find(codeTypeLoses, attr, "%s values of %s come out different as %s", humanize.Comma(changed), l.Name,
			w.Type).Loss = ddl.RowsLost(changed, true, "at once")
	case open != "":
		d.change.Find(codeTypeLoses, attr, "how many of %s come out different is not known: %s", s,
			open).Loss = ddl.RowsLost(0, false, "at once")
	default:
		return d.rewritten(ctx, w, l, attr, s)
	}
	return nil
}

// rewritten tells what the server rewrites for another type that keeps every value: all rows, some indexes, or nothing.
func (d *tableDiff) rewritten(ctx context.Context, w *spec.Column, l *catalog.Column, attr string, s size) error {
	rows, indexes, err := d.rewrittenFor(ctx, w, l)
	if err != nil && pg.Code(err) == "" {
		return err
	}
	switch {
	case rows, err != nil: // it may be; what the server refuses, the dry run tells
		d.change.Find(codeTypeChanges, attr, "%s are rewritten; every value fits", s)
	case indexes > 0:
		d.change.Find(codeTypeChanges, attr, "no row is rewritten, but %s over %s; every value fits",
			english.Plural(indexes, "index is rebuilt", "indexes are rebuilt"), s)
	default:
		d.change.Note("%s becomes %s at once: no row and no index is rewritten", l.Name, w.Type)
	}
	return nil
}

// rewrittenFor asks the server with an empty copy of the table: what is rewritten has another file afterwards.
func (d *tableDiff) rewrittenFor(
	ctx context.Context, w *spec.Column, l *catalog.Column,
) (rows bool, indexes int, err error) {
	const files = `SELECT pg_relation_filenode('pg_temp.cryptoviz_retyped')::bigint,
		coalesce((SELECT array_agg(pg_relation_filenode(indexrelid)::bigint) FROM pg_index WHERE indrelid = 'pg_temp.cryptoviz_retyped'::regclass), '{}')`
	err = d.t.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "CREATE TEMPORARY TABLE cryptoviz_retyped (LIKE "+
			pg.Ident(d.t.rel.Schema, d.t.rel.Name)+" INCLUDING INDEXES)"); err != nil {
			return err
		}
		var table, tableAfter int64
		var before, after []int64
		if err := tx.QueryRow(ctx, files).Scan(&table, &before); err != nil {
			return err
		}
		sql := fmt.Sprintf("ALTER TABLE pg_temp.cryptoviz_retyped ALTER COLUMN %[1]s TYPE %[2]s USING %[1]s::%[2]s",
			pg.Ident(l.Name), w.Type)
		if err := pg.ExecSingle(ctx, tx, sql); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, files).Scan(&tableAfter, &after); err != nil {
			return err
		}
		rows = table != tableAfter
		for _, file := range after {
			if !slices.Contains(before, file) {
				indexes++
			}
		}
		return nil
	})
	return rows, indexes, err
}

// regenerate drops and adds generated columns that read a column with a new type: PostgreSQL refuses to change what
// they read.
func (d *tableDiff) regenerate(ctx context.Context) error {
	for _, w := range d.follows() {
		if err := d.generate(ctx, w, d.t.rel.Column(w.Name)); err != nil {
			return err
		}
	}
	return nil
}

// follows lists the generated columns that do not change, and read one that gets another type.
func (d *tableDiff) follows() (out []*spec.Column) {
	for _, w := range d.t.Spec.Columns {
		l := d.t.rel.Column(w.Name)
		if _, changes := d.change.Diff("column " + w.Name); changes || w.Generated == "" || l == nil || !l.Generated {
			continue
		}
		if slices.ContainsFunc(d.retyped, func(name string) bool {
			return regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(l.Expr)
		}) {
			out = append(out, w)
		}
	}
	return out
}

// casts tells whether there is a conversion between two types, and one back.
func (d *tableDiff) casts(ctx context.Context, from, to string) (there, back bool, err error) {
	for _, way := range []struct {
		from, to string
		yes      *bool
	}{{from, to, &there}, {to, from, &back}} {
		err := d.t.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "SELECT NULL::"+way.from+"::"+way.to)
			return err
		})
		if *way.yes = err == nil; err != nil && pg.Code(err) != "42846" {
			return there, back, err
		}
	}
	return there, back, nil
}

// recountChanged counts, at the turn of the change, the values that come back different. One that does not convert ends
// it.
func (d *tableDiff) recountChanged(l *catalog.Column, w *spec.Column, back bool) {
	v := pg.Ident(l.Name)
	all := "SELECT count(" + v + ") FROM " + d.quoted()
	if !back {
		d.recount(codeTypeLoses, true, all)
		return
	}
	again := "(" + v + "::" + string(w.Type) + ")::" + l.Type
	r := d.recount(codeTypeLoses, true, all+" WHERE "+again+" IS DISTINCT FROM "+v)
	r.Otherwise = all + " WHERE (" + again + ")::text IS DISTINCT FROM " + v + "::text"
}

// convert counts the values that the new type cannot hold, and those that come back different. Without a way back,
// every value counts as different. Types that know no equality, such as json and point, are compared as texts.
func (d *tableDiff) convert(ctx context.Context, l *catalog.Column, w *spec.Column, back bool) (changed, failing int64,
	open unknown, err error,
) {
	again, same := "(v::"+string(w.Type)+")::"+l.Type, "false"
	if back {
		same = again + " IS NOT DISTINCT FROM v"
	}
	changed, failing, err = d.compare(ctx, l, w, same)
	if pg.Code(err) == "42883" { // json = json
		changed, failing, err = d.compare(ctx, l, w, "("+again+")::text IS NOT DISTINCT FROM v::text")
	}
	open, err = unknownFor(err)
	return changed, failing, open, err
}

// compare converts all values, and counts those for which same is false, and those that do not convert.
func (d *tableDiff) compare(ctx context.Context, l *catalog.Column, w *spec.Column, same string) (changed,
	failing int64, err error,
) {
	err = d.t.Catalog.DryRun(ctx, func(tx pgx.Tx) error {
		if err := pg.SetLocal(ctx, tx, "statement_timeout", "10s", "row_security", "off"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "CREATE FUNCTION pg_temp.cryptoviz_convert(v "+l.Type+
			") RETURNS integer LANGUAGE plpgsql AS $f$ BEGIN PERFORM v::"+string(w.Type)+
			"; IF "+same+" THEN RETURN 0; END IF; RETURN 1; EXCEPTION WHEN data_exception OR "+
			"integrity_constraint_violation THEN RETURN 2; END $f$"); err != nil {
			return err
		}
		return tx.QueryRow(ctx,
			"SELECT count(*) FILTER (WHERE r = 1), count(*) FILTER (WHERE r = 2) FROM (SELECT pg_temp.cryptoviz_convert("+pg.Ident(l.Name)+") AS r FROM "+
				d.quoted()+" WHERE "+pg.Ident(l.Name)+" IS NOT NULL OFFSET 0) x").Scan(&changed, &failing)
	})
	return changed, failing, err
}

// columnar is what is in the columnstore.
type columnar struct {
	chunks int // in it
	all    int
}

// stored counts the chunks in the columnstore, once.
func (d *tableDiff) stored(ctx context.Context) (columnar, error) {
	if d.inColumnstore != nil {
		return *d.inColumnstore, nil
	}
	var c columnar
	if d.t.rel.Hyper != nil {
		err := d.t.Catalog.QueryRow(ctx,
			"SELECT count(*) FILTER (WHERE is_compressed), count(*) FROM timescaledb_information.chunks WHERE hypertable_schema = $1 AND hypertable_name = $2",
			d.t.rel.Schema, d.t.rel.Name).Scan(&c.chunks, &c.all)
		if err != nil {
			return c, err
		}
	}
	d.inColumnstore = &c
	return c, nil
}

// blockedByColumnstore adds the finding that the columnstore forbids to rewrite a column.
func (d *tableDiff) blockedByColumnstore(ctx context.Context, attr string) (bool, error) {
	if d.t.rel.Hyper == nil || !d.t.rel.Hyper.Columnar {
		return false, nil
	}
	in, err := d.stored(ctx)
	switch {
	case err != nil:
		return false, err
	case in.chunks > 0:
		d.change.Find(codeColumnstoreBlocks, attr, "%d of %d chunks are in the columnstore", in.chunks, in.all)
	case !d.t.live.Caps.AtLeast(2, 24):
		d.change.Find(codeColumnstoreBlocks, attr, "the columnstore is on, and TimescaleDB %s allows no rewrite then",
			d.t.live.Caps.Version)
	default:
		return false, nil
	}
	return true, nil
}
