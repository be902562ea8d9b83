package timescale

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// nameSet is a set of names of relations; nil stands for all.
type nameSet map[string]bool

func (n nameSet) have(name string) bool { return n == nil || n[name] }

// of lists the OIDs of those relations that are among the names and of one of the kinds.
func (n nameSet) of(relations map[string]*relation, kinds ...string) (oids []int64) {
	for name, r := range relations {
		if n.have(name) && slices.Contains(kinds, r.kind) {
			oids = append(oids, int64(r.oid))
		}
	}
	return oids
}

// concerned names what the pipeline is about. PostgreSQL locks a table to write down a generated column or an unusual index of
// it, and all that a view reads to write down the view: it waits for who holds them, such as VACUUM FULL. So these are asked for
// with the rest; what is somebody else's is in nobody's way, and is asked for when it is needed: see whole and defined.
func (c *Catalog) concerned() nameSet {
	p := c.Pipeline
	if p == nil {
		return nil
	}
	out := nameSet{}
	for _, t := range p.Tables {
		out[t.Name] = true
	}
	for _, v := range p.Views {
		out[v.Name] = true
	}
	for _, a := range p.Aggregates {
		out[a.Name] = true
	}
	for _, r := range p.Removed {
		out[r.Name] = out[r.Name] || slices.Contains([]string{"table", "view", "aggregate"}, r.Kind)
	}
	return out
}

// concernedViews names the same, and what hangs on a declared aggregate: it is made anew with it.
func (c *Catalog) concernedViews(ctx context.Context) (nameSet, error) {
	out := c.concerned()
	if out == nil || len(c.Pipeline.Aggregates) == 0 {
		return out, nil
	}
	all, err := cached(ctx, c, "reads", c.readings)
	if err != nil {
		return nil, err
	}
	family := nameSet{}
	for _, a := range c.Pipeline.Aggregates {
		family[a.Name] = true
	}
	for grows := true; grows; {
		before := len(family)
		for _, r := range all {
			kind, reader, _ := strings.Cut(r.reader, ".")
			if family[r.relation] && (kind == "view" || kind == "aggregate") {
				family[reader] = true
			}
		}
		grows = len(family) > before
	}
	maps.Copy(out, family)
	return out, nil
}

// whole is a table with the text of everything in it, which is read now unless it was read with the rest.
func (c *Catalog) whole(ctx context.Context, r *relation) (*relation, error) {
	if r == nil || !r.partial {
		return r, nil
	}
	return cached(ctx, c, "table "+r.name, func(ctx context.Context) (*relation, error) {
		s, err := c.load(ctx)
		if err != nil {
			return nil, err
		}
		one := *r
		one.columns, one.indexes, one.partial = nil, nil, false
		err = c.trial(ctx, func(tx pgx.Tx) error {
			if err := pg.PlainText(ctx, tx); err != nil {
				return err
			}
			oids := []int64{int64(r.oid)}
			return s.readParts(ctx, tx, map[uint32]*relation{r.oid: &one}, oids, oids)
		})
		if err != nil {
			return nil, fmt.Errorf("read table %s: %w", r.name, c.busy(ctx, err))
		}
		return &one, nil
	})
}

// defined is a view with its query, which is read now unless it was read with the rest.
func (c *Catalog) defined(ctx context.Context, l *liveView) (*liveView, error) {
	if !l.partial {
		return l, nil
	}
	v, err := c.readViews(ctx, nameSet{l.name: true})
	if err != nil {
		return nil, err
	}
	if v.views[l.name] == nil {
		return nil, fmt.Errorf("view %s no longer exists", l.name)
	}
	return v.views[l.name], nil
}

// busy adds the remedy to the error of a lock that was not to be had.
func (c *Catalog) busy(ctx context.Context, err error) error {
	if pg.Code(err) != "55P03" {
		return err
	}
	return fmt.Errorf("another session holds a lock on what this reads%s: %w; wait for that session, or end it", pg.OldestTransaction(ctx, c.DB), err)
}
