// Package status reads how a pipeline is doing from its database and its brokers: the one answer that the command
// status, the live view of up and the metrics all show.
package status

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/robfig/cron/v3"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Status is one look at a pipeline. Times are UTC.
type Status struct {
	At      time.Time `json:"at"`
	Mode    string    `json:"mode"` // live, simulated or recorded
	Sources []Source  `json:"sources"`
	Rollups []Rollup  `json:"rollups"`
	// Jobs are TimescaleDB's own policies on the pipeline's tables.
	Jobs []store.Job `json:"timescale_jobs,omitempty"`
	// KafkaError says why the lag is unknown; "" when the brokers answered.
	KafkaError string `json:"kafka_error,omitempty"`
}

// Source is one source: what its last slot brought, and how far its worker is.
type Source struct {
	Name      string    `json:"name"`
	Enabled   bool      `json:"enabled"`
	Transport string    `json:"transport"` // http, html or websocket
	Every     string    `json:"every"`     // "1m"
	Topic     string    `json:"topic"`
	Table     string    `json:"table"`
	Slot      time.Time `json:"slot,omitzero"` // the newest slot that has ended
	State     string    `json:"state"`         // of that slot: ok, not_modified, late, skipped, failed; "" for none
	Reason    string    `json:"reason,omitempty"`
	Records   int64     `json:"records"`         // of that slot
	PerMinute float64   `json:"per_minute"`      // records, mean of the last ten minutes, or ten slots if they are longer
	Lag       int64     `json:"lag"`             // records on the topic that are not stored yet; -1 when unknown
	Stored    time.Time `json:"stored,omitzero"` // newest slot whose records are stored
	Dead      int64     `json:"dead_letters"`
	Lost      int64     `json:"lost"`       // records that were gone from the topic before they could be read
	Failed24  int64     `json:"failed_24h"` // slots that ended as failed or skipped
	Hour      Ends      `json:"last_hour"`
	Hints     []string  `json:"hints,omitempty"` // what looks like a mistake of the definition
	interval  time.Duration
}

// Ends counts slots that did not bring their data in time.
type Ends struct {
	Late    int64 `json:"late"`
	Skipped int64 `json:"skipped"`
	Failed  int64 `json:"failed"`
}

// Rollup is one daily rollup.
type Rollup struct {
	Name       string    `json:"name"`
	Next       time.Time `json:"next"`
	Day        string    `json:"last_day,omitempty"` // newest day that is rolled up, 2026-11-22
	RawRows    int64     `json:"raw_rows"`
	HourlyRows int64     `json:"hourly_rows"`
	Days       int64     `json:"days"`
	Due        int64     `json:"days_due"`      // of the last dueDays: days with raw rows that should be rolled up by now; -1 when unknown
	LateRows   int64     `json:"late_rows"`     // of all days: rows that came after their day was rolled up
	Rejected   int64     `json:"rejected_rows"` // of those: they stay raw, as late = "reject" says
}

// dueDays is how far back a look goes for days that were not rolled up.
const dueDays = 31

// Read looks once. A broker that does not answer leaves the lags unknown; a database that does not is an error.
func Read(ctx context.Context, p *spec.Pipeline, db *pgxpool.Pool, kafka *kadm.Client, now time.Time) (Status, error) {
	s := Status{At: now.UTC()}
	if err := db.QueryRow(ctx, "SELECT mode FROM cryptoviz.mode").Scan(&s.Mode); err != nil {
		return s, fmt.Errorf("read the pipeline's status: %w", err)
	}
	at := map[string]int{}
	for _, src := range p.Sources {
		at[src.Name] = len(s.Sources)
		s.Sources = append(s.Sources, Source{
			Name: src.Name, Enabled: src.Enabled, Transport: Transport(src), Every: units.FormatDuration(src.Interval),
			Topic: src.Topic.Name, Table: src.Table.Name, Lag: -1, interval: src.Interval,
		})
	}
	if err := s.slots(ctx, db, at, now); err != nil {
		return s, fmt.Errorf("read the slot ledger: %w", err)
	}
	stored, err := s.positions(ctx, db, at)
	if err != nil {
		return s, fmt.Errorf("read the positions: %w", err)
	}
	if err := s.counts(ctx, db, at, now); err != nil {
		return s, fmt.Errorf("read the dead letters: %w", err)
	}
	if err := s.hints(ctx, db); err != nil {
		return s, fmt.Errorf("read the hints: %w", err)
	}
	if s.Rollups, err = Rollups(ctx, p, db, now); err != nil {
		return s, err
	}
	if s.Jobs, err = Jobs(ctx, p, db); err != nil {
		return s, err
	}
	if err := s.lag(ctx, kafka, stored); err != nil {
		s.KafkaError = err.Error()
	}
	return s, nil
}

// Transport names how a source gets its data.
func Transport(src *spec.Source) string {
	switch {
	case src.Definition.Stream != nil:
		return "websocket"
	case src.Definition.Decode.Format == "html":
		return "html"
	}
	return "http"
}

func (s *Status) slots(ctx context.Context, db *pgxpool.Pool, at map[string]int, now time.Time) error {
	// The inner query walks the primary key from its end: one row a source, however long the ledger is.
	rows, err := db.Query(ctx, `SELECT src.name, l.slot, l.state, l.reason, l.records, coalesce(r.per_minute, 0)
		FROM cryptoviz.source src
		CROSS JOIN LATERAL (SELECT * FROM cryptoviz.slot WHERE source = src.name AND slot <= $1 AND state <> 'running' ORDER BY slot DESC LIMIT 1) l
		CROSS JOIN LATERAL (SELECT sum(records) / (greatest(600, 10 * extract(epoch FROM src.every)) / 60)::double precision AS per_minute
			FROM cryptoviz.slot WHERE source = src.name AND slot <= $1 AND slot > $1::timestamptz - greatest(interval '10 minutes', 10 * src.every)) r`, now)
	if err != nil {
		return err
	}
	var name, state, reason string
	var slot time.Time
	var records int64
	var rate float64
	_, err = pgx.ForEachRow(rows, []any{&name, &slot, &state, &reason, &records, &rate}, func() error {
		if i, ok := at[name]; ok {
			src := &s.Sources[i]
			src.Slot, src.State, src.Reason, src.Records, src.PerMinute = slot.UTC(), state, reason, records, rate
		}
		return nil
	})
	return err
}

type partition struct {
	source int
	n      int32
	next   int64
	topic  string
}

func (s *Status) positions(ctx context.Context, db *pgxpool.Pool, at map[string]int) ([]partition, error) {
	rows, err := db.Query(ctx, "SELECT source, partition, topic, next_offset, last_slot FROM cryptoviz.position")
	if err != nil {
		return nil, err
	}
	var out []partition
	var name string
	var p partition
	var slot *time.Time
	_, err = pgx.ForEachRow(rows, []any{&name, &p.n, &p.topic, &p.next, &slot}, func() error {
		i, ok := at[name]
		if !ok || s.Sources[i].Topic != p.topic {
			return nil
		}
		p.source = i
		out = append(out, p)
		if slot != nil && slot.After(s.Sources[i].Stored) {
			s.Sources[i].Stored = slot.UTC()
		}
		return nil
	})
	return out, err
}

func (s *Status) counts(ctx context.Context, db *pgxpool.Pool, at map[string]int, now time.Time) error {
	rows, err := db.Query(ctx, `SELECT src.name, src.enabled, (SELECT coalesce(sum(records), 0)::bigint FROM cryptoviz.dead_letter_hour WHERE source = src.name),
		(SELECT coalesce(sum(greatest(0, to_offset - from_offset)), 0) FROM cryptoviz.gap WHERE source = src.name),
		l.failed, l.late_1h, l.skipped_1h, l.failed_1h
		FROM cryptoviz.source src
		CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE state <> 'late') AS failed, count(*) FILTER (WHERE state = 'late' AND slot > $1::timestamptz - interval '1 hour') AS late_1h,
			count(*) FILTER (WHERE state = 'skipped' AND slot > $1::timestamptz - interval '1 hour') AS skipped_1h, count(*) FILTER (WHERE state = 'failed' AND slot > $1::timestamptz - interval '1 hour') AS failed_1h
			FROM cryptoviz.slot WHERE source = src.name AND state IN ('failed', 'skipped', 'late') AND slot > $1::timestamptz - interval '24 hours' AND slot <= $1) l`, now)
	if err != nil {
		return err
	}
	var name string
	var enabled bool // as applied: up switches off what it cannot play
	var dead, lost, failed int64
	var hour Ends
	_, err = pgx.ForEachRow(rows, []any{&name, &enabled, &dead, &lost, &failed, &hour.Late, &hour.Skipped, &hour.Failed}, func() error {
		if i, ok := at[name]; ok {
			s.Sources[i].Enabled = enabled
			s.Sources[i].Dead, s.Sources[i].Lost, s.Sources[i].Failed24 = dead, lost, failed
			s.Sources[i].Hour = hour
		}
		return nil
	})
	return err
}

// hints reads what the workers see of the definitions.
func (s *Status) hints(ctx context.Context, db *pgxpool.Pool) (err error) {
	for i := range s.Sources {
		src := &s.Sources[i]
		if src.Hints, err = store.Hints(ctx, db, src.Name, s.At.Add(-store.HintHolds(src.interval))); err != nil {
			return err
		}
	}
	return nil
}

// Jobs looks at TimescaleDB's own policies alone: none where it is not installed.
func Jobs(ctx context.Context, p *spec.Pipeline, db *pgxpool.Pool) ([]store.Job, error) {
	var names []string
	for _, t := range p.Tables {
		names = append(names, t.Name)
	}
	for _, a := range p.Aggregates {
		names = append(names, a.Name)
	}
	return store.Jobs(ctx, db, names)
}

// Rollups looks at the rollups alone.
func Rollups(ctx context.Context, p *spec.Pipeline, db *pgxpool.Pool, now time.Time) ([]Rollup, error) {
	var out []Rollup
	for _, r := range p.Rollups {
		one, err := rollup(ctx, r, db, now.UTC())
		if err != nil {
			return nil, fmt.Errorf("read the rollups: %w", err)
		}
		out = append(out, one)
	}
	return out, nil
}

func rollup(ctx context.Context, r *spec.Rollup, db *pgxpool.Pool, now time.Time) (Rollup, error) {
	schedule, err := cron.ParseStandard(r.Schedule)
	if err != nil {
		return Rollup{}, err
	}
	out := Rollup{Name: r.Name, Next: schedule.Next(now)}
	err = db.QueryRow(ctx, `SELECT coalesce(max(day)::text, ''), count(*),
		coalesce((array_agg(raw_rows ORDER BY day DESC))[1], 0), coalesce((array_agg(hourly_rows ORDER BY day DESC))[1], 0),
		coalesce(sum(late_rows), 0)::bigint, coalesce(sum(late_rows) FILTER (WHERE took IS NULL), 0)::bigint
		FROM cryptoviz.rollup_day WHERE rollup = $1`, r.Name).Scan(&out.Day, &out.Days, &out.RawRows, &out.HourlyRows, &out.LateRows, &out.Rejected)
	if err != nil {
		return Rollup{}, err
	}
	out.Due, err = due(ctx, r, schedule, db, now)
	return out, err
}

// due counts the days whose time to be rolled up has come, that have raw rows and are not in the ledger, or were dropped before
// the last time and have late rows. Only whether there is a row is looked up: counting them, as the rollup itself does, is not
// for every look.
func due(ctx context.Context, r *spec.Rollup, schedule cron.Schedule, db *pgxpool.Pool, now time.Time) (int64, error) {
	const day = 24 * time.Hour
	switch {
	case r.From.Hypertable == nil:
		return -1, nil
	case schedule.Next(now).IsZero(): // a date that does not exist
		return 0, nil
	}
	last := now.Truncate(day).Add(-day)
	for schedule.Next(last.Add(day - time.Nanosecond)).After(now) { // over, but its time has not come
		last = last.Add(-day)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	raw, column := pg.Ident(r.From.Name), pg.Ident(r.From.Hypertable.Time)
	var n int64
	err := db.QueryRow(ctx, `SELECT count(*) FROM generate_series($2::timestamptz, $3, interval '24 hours') AS d
		WHERE NOT EXISTS (SELECT FROM cryptoviz.rollup_day WHERE rollup = $1 AND day = (d AT TIME ZONE 'UTC')::date
			AND (dropped_at IS NULL OR took IS NULL OR rolled_at >= $4))
		AND EXISTS (SELECT FROM `+raw+` AS r WHERE r.`+column+` >= d AND r.`+column+` < d + interval '24 hours')`, r.Name, last.Add(-(dueDays-1)*day), last, schedule.Next(last.Add(day-time.Nanosecond))).Scan(&n)
	if err != nil {
		return -1, nil //nolint:nilerr // not applied yet, or a table without an index on the time: the rest is worth showing
	}
	return n, nil
}

// lag compares the topics' ends with the database's positions; the consumer groups' offsets are not asked.
func (s *Status) lag(ctx context.Context, kafka *kadm.Client, stored []partition) error {
	if kafka == nil {
		return nil
	}
	var topics []string
	for _, src := range s.Sources {
		if !slices.Contains(topics, src.Topic) {
			topics = append(topics, src.Topic)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ends, err := kafka.ListEndOffsets(ctx, topics...)
	if err != nil {
		return fmt.Errorf("read the topics' ends: %w", err)
	}
	starts, err := kafka.ListStartOffsets(ctx, topics...)
	if err != nil {
		return fmt.Errorf("read the topics' starts: %w", err)
	}
	next := map[string]map[int32]int64{}
	for _, p := range stored {
		name := s.Sources[p.source].Name
		if next[name] == nil {
			next[name] = map[int32]int64{}
		}
		next[name][p.n] = p.next
	}
	var unread error
	for i := range s.Sources {
		src := &s.Sources[i]
		partitions := ends[src.Topic]
		total, known := int64(0), len(partitions) > 0
		for n, end := range partitions {
			if end.Err != nil {
				known = false
				if src.Enabled && unread == nil {
					unread = fmt.Errorf("read the end of topic %s: %w", src.Topic, end.Err)
				}
				break
			}
			from, found := next[src.Name][n]
			if !found {
				if start, ok := starts.Lookup(src.Topic, n); ok {
					from = start.Offset
				}
			}
			total += max(0, end.Offset-from)
		}
		if known {
			src.Lag = total
		}
	}
	return unread
}
