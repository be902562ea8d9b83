package catalog

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
func (n nameSet) of(relations map[string]*Relation, kinds ...string) (oids []int64) {
	for name, r := range relations {
		if n.have(name) && slices.Contains(kinds, r.Kind) {
			oids = append(oids, int64(r.OID))
		}
	}
	return oids
}

// declaredNames names what the pipeline is about. PostgreSQL locks a table to write down a generated column or an
// unusual index of it, and all that a view reads to write down the view: it waits for who holds them, such as VACUUM
// FULL. So these are asked for with the snapshot; what is unmanaged is read when it is needed: see FullTable and
// FullView.
func (c *Catalog) declaredNames() nameSet {
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

// declaredViews names the same, and what depends on a declared aggregate: it is rebuilt with it.
func (c *Catalog) declaredViews(ctx context.Context) (nameSet, error) {
	out := c.declaredNames()
	if out == nil || len(c.Pipeline.Aggregates) == 0 {
		return out, nil
	}
	all, err := Cached(ctx, c, "reads", c.readings)
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

// FullTable is a table with the text of everything in it, which is read now unless it was read with the rest.
func (c *Catalog) FullTable(ctx context.Context, r *Relation) (*Relation, error) {
	if r == nil || !r.partial {
		return r, nil
	}
	return Cached(ctx, c, "table "+r.Name, func(ctx context.Context) (*Relation, error) {
		s, err := c.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		one := *r
		one.Columns, one.Indexes, one.partial = nil, nil, false
		err = c.DryRun(ctx, func(tx pgx.Tx) error {
			if err := pg.PlainText(ctx, tx); err != nil {
				return err
			}
			oids := []int64{int64(r.OID)}
			return s.readParts(ctx, tx, map[uint32]*Relation{r.OID: &one}, oids, oids)
		})
		if err != nil {
			return nil, fmt.Errorf("read table %s: %w", r.Name, c.busy(ctx, err))
		}
		return &one, nil
	})
}

// FullView is a view with its query, which is read now unless it was read with the rest.
func (c *Catalog) FullView(ctx context.Context, l *View) (*View, error) {
	if !l.Partial {
		return l, nil
	}
	v, err := c.readViews(ctx, nameSet{l.Name: true})
	if err != nil {
		return nil, err
	}
	if v.Views[l.Name] == nil {
		return nil, fmt.Errorf("view %s no longer exists", l.Name)
	}
	return v.Views[l.Name], nil
}

// busy adds the remedy to the error of a lock that was not to be had.
func (c *Catalog) busy(ctx context.Context, err error) error {
	if pg.Code(err) != "55P03" {
		return err
	}
	return fmt.Errorf("another session holds a lock on what this reads%s: %w; wait for that session, or end it",
		pg.OldestTransaction(ctx, c.DB), err)
}
