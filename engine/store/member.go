package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// Member is a number that no other instance on the database has while this one lives. A session's advisory lock holds
// it: when the process is killed, the lock ends with its connection, and whoever starts next takes the same number, the
// lowest free one, at once. A machine that vanished keeps its number until the server notices, within a minute.
type Member struct {
	s      *Store
	number atomic.Int32
	conn   *pgx.Conn
	pid    uint32    // of the session that holds the lock
	began  time.Time // of that session

	ctx    context.Context // ends with Leave
	cancel context.CancelFunc
	kept   sync.WaitGroup
}

// ErrPooled means that a pooler is between this process and the database: the lock would be on a session that others
// use too.
var ErrPooled = errors.New("the database is behind a connection pooler")

// memberLocks is the first key of the locks; the second is the number.
const memberLocks = 0x63727970 // "cryp"

// justKilled is how long the lock of a process that was killed a moment ago may outlive it.
const justKilled = 250 * time.Millisecond

// Join takes the lowest free number. From then on the slots of this instance carry it, and those that the one before it
// under this number left unfinished are free. It is called before anything runs.
func (s *Store) Join(ctx context.Context) (*Member, error) {
	m := &Member{s: s}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	err := m.connect(ctx)
	if err == nil {
		err = m.lowest(ctx)
	}
	if err != nil {
		m.Leave()
		return nil, fmt.Errorf("take a number among the instances: %w", err)
	}
	owner := m.Name() + "/"
	// The lock says that the one before is gone, so nobody waits for its lease to run out.
	_, err = s.pool.Exec(ctx,
		"UPDATE cryptoviz.slot SET lease_until = clock_timestamp() WHERE state = 'running' AND starts_with(owner, $1) AND lease_until > clock_timestamp()", owner)
	if err != nil {
		m.Leave()
		return nil, fmt.Errorf("free the slots of the instance before: %w", err)
	}
	s.owner = owner + s.owner
	return m, nil
}

// Name is the number as a name: "n1".
func (m *Member) Name() string { return fmt.Sprintf("n%d", m.number.Load()) }

// connect opens the session.
func (m *Member) connect(ctx context.Context) error {
	ctx, cancel := pg.Short(ctx)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, m.s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	m.conn = conn
	// The session does nothing for days, and must not be ended for it; of a machine that vanished it must end soon.
	for _, setting := range []string{
		"idle_session_timeout = 0", "tcp_keepalives_idle = 20",
		"tcp_keepalives_interval = 10", "tcp_keepalives_count = 3",
	} {
		_, _ = conn.Exec(ctx, "SET "+setting) // a server without it does without
	}
	if err := conn.QueryRow(ctx, "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").
		Scan(&m.pid, &m.began); err != nil {
		return err
	}
	if m.pid != conn.PgConn().PID() {
		return ErrPooled
	}
	return nil
}

// lowest takes the lowest number. Above the first it looks twice: the lock of a process that was killed just now may
// still be on its way out.
func (m *Member) lowest(ctx context.Context) error {
	first, err := m.take(ctx, math.MaxInt32)
	if err != nil || first == 1 {
		m.number.Store(first)
		return err
	}
	select {
	case <-time.After(justKilled):
	case <-ctx.Done():
		return ctx.Err()
	}
	lower, err := m.take(ctx, first)
	if err != nil || lower == first {
		m.number.Store(first)
		return err
	}
	m.number.Store(lower)
	_, err = m.conn.Exec(ctx, "SELECT pg_advisory_unlock($1, $2)", memberLocks, first)
	return err
}

// take locks the lowest free number below one, or returns that.
func (m *Member) take(ctx context.Context, below int32) (int32, error) {
	for n := int32(1); n < below; n++ {
		if got, err := m.lock(ctx, n); err != nil || got {
			return n, err
		}
	}
	return below, nil
}

func (m *Member) lock(ctx context.Context, n int32) (got bool, err error) {
	ctx, cancel := pg.Short(ctx)
	defer cancel()
	err = m.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", memberLocks, n).Scan(&got)
	return got, err
}

// Keep holds the number until Leave. When the connection is lost, it takes the number again; if another instance has it
// by then, it takes another one, and calls renamed.
func (m *Member) Keep(renamed func(name string)) {
	m.kept.Go(func() {
		for m.ctx.Err() == nil {
			if _, err := m.conn.WaitForNotification(m.ctx); err == nil || m.ctx.Err() != nil {
				continue // nothing is listened to: it ends with the connection
			}
			was := m.number.Load()
			_, err := backoff.Retry(m.ctx, func() (struct{}, error) { return struct{}{}, m.again(m.ctx) },
				backoff.WithBackOff(&backoff.ExponentialBackOff{
					InitialInterval: 100 * time.Millisecond, Multiplier: 2,
					MaxInterval: 2 * time.Second, RandomizationFactor: 0.3,
				}),
				backoff.WithMaxElapsedTime(0))
			if is := m.number.Load(); err == nil && is != was {
				m.s.log.Warn("another instance has taken this one's number: it goes on under another", "was", was, "is",
					is)
				renamed(m.Name())
			}
		}
	})
}

// again takes the number again on a new connection. The session of before, if the server has not noticed its end, is
// ended.
func (m *Member) again(ctx context.Context) error {
	pid, began := m.pid, m.began
	m.close()
	if err := m.connect(ctx); err != nil {
		m.pid, m.began = pid, began
		return err
	}
	query, cancel := pg.Short(ctx)
	defer cancel()
	if _, err := m.conn.Exec(query,
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2", pid,
		began); err != nil {
		return err
	}
	for range 2 {
		if got, err := m.lock(ctx, m.number.Load()); err != nil || got {
			return err
		}
		select {
		case <-time.After(justKilled):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return m.lowest(ctx)
}

// Leave gives the number free.
func (m *Member) Leave() {
	m.cancel()
	m.kept.Wait()
	m.close()
}

func (m *Member) close() {
	if m.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = m.conn.Close(ctx)
}
