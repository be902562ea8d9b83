package ddl

import (
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Group is what PostgreSQL changes only together: a view or an aggregate keeps a column, or a whole view, from being
// changed, so it is dropped before and created after, all in one transaction. The change of the leader has the
// statements of all.
type Group struct {
	Leader    string
	Members   []string // addresses of what is changed, dropped or created in it
	Depends   []string // what must be there before the transaction
	Tables    []string // names of the tables that are changed in it, the leader first if it is one
	Drops     []string // statements, what reads another before that one
	Creates   []string // statements, what reads another after that one
	Refreshes []string // statements that TimescaleDB runs in no transaction
	Recreated []string // addresses of what is dropped and created again
	Notes     []string
}

// Aggregates tells whether continuous aggregates are dropped or created: that is too much for a dry run.
func (g *Group) Aggregates() bool {
	return slices.ContainsFunc(slices.Concat(g.Drops, g.Creates), func(sql string) bool {
		return strings.HasPrefix(sql, DropAggregate) || strings.HasPrefix(sql, createAggregate)
	})
}

// Groups tells which changes of a plan are made together.
type Groups struct {
	ByAddress map[string]*Group   // by address
	Blocked   map[string][]string // what forbids a change: by address, "view.x depends on it"
	// aggregates that are created again: by name, the one that they read and that is, too, or ""
	Rebuilt map[string]string
}

// Join says on a change that it belongs to a group, and gives the leader's the statements of all. tables are those of
// the leader's table, as inTransaction has them; others lists those of the other tables.
func (g *Group) Join(c *plan.Change, steps []string) {
	if len(g.Members) > 1 {
		c.Group = g.Leader
	}
	if c.Address != g.Leader {
		c.Steps = nil
		c.Note("done in the transaction of %s", g.Leader)
		return
	}
	for _, n := range g.Notes {
		c.Note("%s", n)
	}
	if again := slices.DeleteFunc(slices.Clone(g.Recreated), func(a string) bool {
		return a == c.Address
	}); len(again) > 0 {
		c.Note("dropped and created again in the same transaction, with grants and comments: %s",
			strings.Join(again, ", "))
	}
	inside, after := Unwrapped(steps)
	c.Steps = slices.Concat(Transaction(slices.Concat(g.Drops, inside, g.Creates)...), after, g.Refreshes)
}

// DependsOn lists what a member of a group depends on, other than those that are changed with it. Of no group: own.
func (g *Group) DependsOn(address string, own []string) []string {
	switch {
	case g == nil:
		return own
	case g.Leader != address:
		return append(slices.Clone(own), g.Leader)
	}
	return g.Depends
}
