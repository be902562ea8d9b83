package rollup

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// blockers looks, over a connection of its own, who a session waits for.
type blockers struct {
	last atomic.Pointer[string]
	stop func()
}

// watchBlockers looks each second, until stop.
func watchBlockers(ctx context.Context, pool *pgxpool.Pool, pid uint32) *blockers {
	ctx, cancel := context.WithCancel(ctx)
	b, done := &blockers{}, make(chan struct{})
	b.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		for pause := 500 * time.Millisecond; ; pause = time.Second {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if said, err := blocking(ctx, pool, pid); err == nil && said != "" {
				b.last.Store(&said)
			}
		}
	}()
	return b
}

// text tells who was last waited for, or "".
func (b *blockers) text() string {
	if b == nil || b.last.Load() == nil {
		return ""
	}
	return *b.last.Load()
}

// blocking names the sessions that a session waits for, those that have waited longest first. What the server hides
// from the role is left out.
func blocking(ctx context.Context, pool *pgxpool.Pool, pid uint32) (string, error) {
	rows, err := pool.Query(ctx, `SELECT pid, coalesce(application_name, ''), coalesce(usename::text, ''), coalesce(state, ''), xact_start, query_start
		FROM pg_catalog.pg_stat_activity WHERE pid = ANY(pg_catalog.pg_blocking_pids($1)) ORDER BY xact_start NULLS LAST, pid LIMIT 3`, int32(pid)) //nolint:gosec // a pid
	if err != nil {
		return "", err
	}
	var out []string
	var holder int32
	var application, user, state string
	var since, query *time.Time
	_, err = pgx.ForEachRow(rows, []any{&holder, &application, &user, &state, &since, &query}, func() error {
		text := []string{fmt.Sprintf("pid %d", holder)}
		add := func(name, value string) {
			if value != "" {
				text = append(text, name+value)
			}
		}
		add("application ", application)
		add("user ", user)
		add("", state)
		add("in a transaction since ", moment(since))
		add("query of ", moment(query))
		out = append(out, strings.Join(text, ", "))
		return nil
	})
	return strings.Join(out, "; "), err
}

func moment(at *time.Time) string {
	if at == nil {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04:05 UTC")
}
