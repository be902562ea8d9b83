package ddl

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// build is an index that a step builds CONCURRENTLY. A try that ends early, without its lock or interrupted, leaves the
// index invalid: it blocks nothing, and no query uses it. IF NOT EXISTS would take that one for done.
type build struct{ index, table string } // both quoted

// building is what indexSQL writes.
var building = regexp.MustCompile(`^CREATE (?:UNIQUE )?INDEX ` + Concurrently + `("(?:[^"]|"")+") ON ("(?:[^"]|"")+") `)

// buildOf returns the index that a step builds CONCURRENTLY, nil for any other step.
func buildOf(sql string) *build {
	m := building.FindStringSubmatch(sql)
	if m == nil {
		return nil
	}
	return &build{m[1], m[2]}
}

// run builds the index, and makes sure that it is there and of use.
func (b *build) run(ctx context.Context, conn *pgx.Conn, sql string) error {
	if err := b.clear(ctx, conn); err != nil {
		return &pg.StatementError{SQL: sql, Err: err}
	}
	if err := send(ctx, conn, sql); err != nil {
		return err
	}
	switch _, valid, err := b.look(ctx, conn); {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%s: the name of index %s belongs to something else than an index of table %s; give the "+
			"index another name, and plan again", sql, b.index, b.table)
	case err != nil:
		return &pg.StatementError{SQL: sql, Err: err}
	case !valid:
		return fmt.Errorf("%s: index %s is invalid after it was built, since another session builds it or was "+
			"interrupted; wait for that one, then apply again", sql, b.index)
	}
	return nil
}

// look finds the index: its full name, and whether it is valid.
func (b *build) look(ctx context.Context, q catalog.Querier) (name string, valid bool, err error) {
	err = q.QueryRow(ctx, `SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE i.indrelid = to_regclass($1) AND c.relname = $2`, b.table, unquote(b.index)).Scan(&name, &valid)
	return name, valid, err
}

// clear drops what an earlier try left behind. That try's session may still be at work: whoever builds an index holds
// this lock.
func (b *build) clear(ctx context.Context, conn *pgx.Conn) error {
	name, valid, err := b.look(ctx, conn)
	if err == nil && !valid {
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
			if _, err := tx.Exec(ctx, "LOCK TABLE "+b.table+" IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
				return err
			}
			// The builder gives up the lock a moment before the transaction ends that makes the index valid.
			for range 20 {
				if name, valid, err = b.look(ctx, tx); err != nil || valid {
					return err
				}
				if _, err = tx.Exec(ctx, "SELECT pg_sleep(0.05)"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil || valid:
		return err
	}
	err = send(ctx, conn, "DROP INDEX CONCURRENTLY IF EXISTS "+name)
	// its session has made it valid just now: PostgreSQL gives up the lock a moment before that counts
	if pg.Code(err) == "XX000" {
		return nil
	}
	return err
}

// unquote takes the quotes of quote off again.
func unquote(name string) string {
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(name, `"`), `"`), `""`, `"`)
}
