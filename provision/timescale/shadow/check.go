package shadow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// Check is SQL that is run after apply: of a rollup, a panel, an alert.
type Check struct {
	Address, What, SQL string

	Rejected  string // what the server says against it
	Unchecked bool   // another session holds what it reads, or the server is slow
}

// Check has the server read SQL as it will be after apply, with the views and aggregates that change, by address.
// Nothing of it is run, whatever it is.
func (q *Queries) Check(ctx context.Context, changed []string, checks []*Check) error {
	if len(checks) == 0 {
		return nil
	}
	var views []*Query
	for _, x := range q.Ordered() {
		if slices.Contains(changed, x.Address) {
			views = append(views, x)
		}
	}
	err := q.inShadow(ctx, false, func(sh *schema) error {
		if !sh.engine || sh.unplanned != "" { // the change of these tables says what is wrong with them
			return nil
		}
		if err := sh.makeAll(ctx, views); err != nil {
			return err
		}
		return sh.check(ctx, checks)
	})
	if pg.Is(err, pg.ReadOnly) { // the plan says at its top that nothing is checked
		return nil
	}
	return err
}

// makeAll makes the views that the server takes.
func (sh *schema) makeAll(ctx context.Context, list []*Query) error {
	if len(list) == 0 {
		return nil
	}
	failed, err := sh.makeViews(ctx, list)
	if err != nil || !failed || len(list) == 1 {
		return err
	}
	if err := sh.makeAll(ctx, list[:len(list)/2]); err != nil {
		return err
	}
	return sh.makeAll(ctx, list[len(list)/2:])
}

// check has the server read all of it in one request, and where it rejects any each half by itself.
func (sh *schema) check(ctx context.Context, checks []*Check) error {
	err := pg.Savepoint(ctx, sh.tx, func() error {
		var all []string
		for _, c := range checks {
			all = append(all, sh.here(c.SQL))
		}
		sh.q.Catalog.Count()
		return pg.PrepareAll(ctx, sh.tx, all)
	})
	if err == nil || pg.Code(err) == "" {
		return err
	}
	if len(checks) > 1 {
		if err := sh.check(ctx, checks[:len(checks)/2]); err != nil {
			return err
		}
		return sh.check(ctx, checks[len(checks)/2:])
	}
	c := checks[0]
	switch c.Rejected = readsRemoved(sh.q.Pipeline, err); {
	case c.Rejected != "":
	case pg.Is(err, pg.LockBusy, pg.Canceled) && ctx.Err() == nil:
		c.Unchecked = true
		return pg.SetLocal(ctx, sh.tx, "lock_timeout", "100ms") // for those that come after it
	case Rejected(err) != nil:
		c.Rejected = messageAndHint(err)
	default:
		return fmt.Errorf("check the SQL of %s: %w", c.Address, err)
	}
	return nil
}

func messageAndHint(err error) string {
	e, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return err.Error()
	case e.Hint == "":
		return e.Message
	}
	return e.Message + ". " + strings.TrimSuffix(e.Hint, ".")
}
