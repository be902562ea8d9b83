package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Ledger is cryptoviz.managed: what the last apply set, by address.
type Ledger struct{ DB *pgxpool.Pool }

// Entry is what the last apply set on an object, and on which server.
type Entry struct {
	State    plan.State
	Server   string // as plan.Servers.Place names it; "": set by an earlier version, or not known
	Pipeline string // that manages it; "": as above
}

// All returns every object's state, whatever server it is on.
func (l *Ledger) All(ctx context.Context) (map[string]plan.State, error) {
	entries, err := l.Entries(ctx)
	out := map[string]plan.State{}
	for address, e := range entries {
		out[address] = e.State
	}
	return out, err
}

// Entries returns every row. Without the table, before the first apply, there is none.
func (l *Ledger) Entries(ctx context.Context) (map[string]Entry, error) {
	out := map[string]Entry{}
	// The columns server and pipeline are there from versions 4 and 5 on.
	rows, err := l.DB.Query(ctx, "SELECT address, state::text, coalesce(to_jsonb(m) ->> 'server', ''), "+
		"coalesce(to_jsonb(m) ->> 'pipeline', '') FROM cryptoviz.managed m")
	if err == nil {
		var address, text string
		var e Entry
		_, err = pgx.ForEachRow(rows, []any{&address, &text, &e.Server, &e.Pipeline}, func() error {
			e.State = plan.State{}
			if err := json.Unmarshal([]byte(text), &e.State); err != nil {
				return fmt.Errorf("state of %s: %w", address, err)
			}
			out[address] = e
			return nil
		})
	}
	switch {
	case pg.Is(err, pg.MissingObject):
		return map[string]Entry{}, nil
	case pg.Is(err, pg.NoPrivilege):
		return nil, fmt.Errorf("read the ledger cryptoviz.managed: %w; GRANT USAGE ON SCHEMA cryptoviz and SELECT "+
			"on its tables, or use the user that owns it", err)
	case err != nil:
		return nil, fmt.Errorf("read the ledger cryptoviz.managed: %w", err)
	}
	return out, nil
}

// Put writes down what apply has set on an object.
func (l *Ledger) Put(ctx context.Context, address string, e Entry, by, version string) error {
	text, err := json.Marshal(e.State)
	if err != nil {
		return err
	}
	salt, err := l.Salt(ctx)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, l.DB, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO cryptoviz.managed (address, state, applied_at, applied_by, version, server, pipeline)
			VALUES ($1, $2::text::jsonb, now(), $3, $4, $5, $6) ON CONFLICT (address) DO UPDATE SET state = excluded.state,
			applied_at = excluded.applied_at, applied_by = excluded.applied_by, version = excluded.version, server = excluded.server,
			pipeline = excluded.pipeline`, address, string(text), by, version, e.Server, e.Pipeline); err != nil {
			return err
		}
		if err := putKeepRaw(ctx, tx, address, e.State); err != nil {
			return err
		}
		// From here on it stays, also when the database moves to another server.
		_, err := tx.Exec(ctx, "INSERT INTO cryptoviz.meta VALUES ('salt', $1) ON CONFLICT DO NOTHING", salt)
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s into the ledger cryptoviz.managed: %w", address, err)
	}
	return nil
}

// putKeepRaw writes down for the rollup how long raw rows of a table are kept.
func putKeepRaw(ctx context.Context, tx pgx.Tx, address string, s plan.State) error {
	table, is := strings.CutPrefix(address, "table.")
	if !is {
		return nil
	}
	keep, set := s.Get("keep_raw")
	if !set {
		_, err := tx.Exec(ctx, "DELETE FROM cryptoviz.rollup_state WHERE table_name = $1", table)
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO cryptoviz.rollup_state (table_name, keep_raw) VALUES ($1, $2::text::interval)
		ON CONFLICT (table_name) DO UPDATE SET keep_raw = excluded.keep_raw`, table, keep.Value)
	return err
}

// Forget removes an object that is deleted.
func (l *Ledger) Forget(ctx context.Context, address string) error {
	const kept = "DELETE FROM cryptoviz.rollup_state WHERE 'table.' || table_name = $1"
	if _, err := l.DB.Exec(ctx, kept, address); err != nil && !pg.Is(err, pg.MissingObject) {
		return fmt.Errorf("remove %s from cryptoviz.rollup_state: %w", address, err)
	}
	if _, err := l.DB.Exec(ctx, "DELETE FROM cryptoviz.managed WHERE address = $1", address); err != nil &&
		!pg.Is(err, pg.MissingObject) {
		return fmt.Errorf("remove %s from the ledger cryptoviz.managed: %w", address, err)
	}
	return nil
}

// Salt goes into the hashes of secrets. Before the first apply it follows from the server's and the database's
// identity, so that a saved plan and its apply agree; Put keeps it.
func (l *Ledger) Salt(ctx context.Context) (string, error) {
	var salt string
	err := l.DB.QueryRow(ctx, "SELECT value FROM cryptoviz.meta WHERE key = 'salt'").Scan(&salt)
	if err == nil {
		return salt, nil
	}
	if !pg.Is(err, pg.MissingObject) && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("read the salt in cryptoviz.meta: %w", err)
	}
	d, err := l.database(ctx)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "cryptoviz salt %s %d %s", d.System, d.OID, d.Name))
	return hex.EncodeToString(sum[:16]), nil
}

// database is the server's and the database's identity. Some services keep the server's to themselves.
func (l *Ledger) database(ctx context.Context) (d plan.Database, err error) {
	const oid = "SELECT oid, datname::text FROM pg_database WHERE datname = current_database()"
	if err := l.DB.QueryRow(ctx, oid).Scan(&d.OID, &d.Name); err != nil {
		return d, fmt.Errorf("read the database's identity: %w", err)
	}
	err = l.DB.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&d.System)
	if err != nil && !pg.Is(err, pg.NoPrivilege) {
		return d, fmt.Errorf("read the server's identity: %w", err)
	}
	return d, nil
}

// Identity tells this database from every other one. copied is where the last apply was, when this is a copy of that
// database.
func (l *Ledger) Identity(ctx context.Context) (d plan.Database, copied string, err error) {
	if d, err = l.database(ctx); err != nil {
		return d, "", err
	}
	rows, err := l.DB.Query(ctx, "SELECT key, value FROM cryptoviz.meta WHERE key IN ('ledger', 'database')")
	if err == nil {
		var key, value string
		_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
			if key == "ledger" {
				d.Ledger = value
			} else {
				copied = value
			}
			return nil
		})
	}
	if err != nil && !pg.Is(err, pg.MissingObject, pg.NoPrivilege) {
		return d, "", fmt.Errorf("read cryptoviz.meta: %w", err)
	}
	if here := (plan.Servers{Database: d}).Place(plan.EngineAddress); copied == here || strings.HasPrefix(here, "?") ||
		strings.HasPrefix(copied, "?") {
		copied = ""
	}
	return d, copied, nil
}

// FillIn writes the servers and the pipeline into rows that name none. All rows of objects in the database are of this
// one: a copy has its own.
func (l *Ledger) FillIn(ctx context.Context, s plan.Servers, pipeline string) error {
	err := pgx.BeginFunc(ctx, l.DB, func(tx pgx.Tx) error {
		for _, kind := range []string{"topic", "table", "dashboard"} { // one of each system
			place, system := s.Place(kind+"."), plan.SystemOf(kind)
			if place == "" {
				continue
			}
			const fill = `UPDATE cryptoviz.managed SET server = $1 WHERE server <> $1 AND (server = '' OR $3) AND split_part(address, '.', 1) = ANY($2)`
			if _, err := tx.Exec(ctx, fill, place, plan.KindsOf(system), system == "PostgreSQL"); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "UPDATE cryptoviz.managed SET pipeline = $1 WHERE pipeline = ''",
			pipeline); err != nil {
			return err
		}
		_, err := tx.Exec(ctx,
			"INSERT INTO cryptoviz.meta VALUES ('database', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value "+
				"WHERE cryptoviz.meta.value <> excluded.value", s.Place(plan.EngineAddress))
		return err
	})
	if err != nil && !pg.Is(err, pg.MissingObject) {
		return fmt.Errorf("write the servers and the pipeline into the ledger cryptoviz.managed: %w", err)
	}
	return nil
}
