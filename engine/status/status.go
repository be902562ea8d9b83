// Package status reads how a pipeline is doing from its database and its brokers: the one answer that the command
// status, the live view of up and the metrics all show.
package status

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Status is one look at a pipeline. Times are UTC.
type Status struct {
	At      time.Time       `json:"at"`
	Mode    string          `json:"mode"` // live, simulated or recorded
	Sources []Source        `json:"sources"`
	Rollups []rollup.Status `json:"rollups"`
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
	Records   int64     `json:"records"` // of that slot
	// records, mean of the last ten minutes, or ten slots if they are longer
	PerMinute float64   `json:"per_minute"`
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

// Read looks once. A broker that does not answer leaves the lags unknown; a database that does not is an error.
func Read(ctx context.Context, p *spec.Pipeline, db *pgxpool.Pool, kafka *kadm.Client, now time.Time) (Status, error) {
	s := Status{At: now.UTC()}
	var err error
	if s.Mode, err = store.Mode(ctx, db); err != nil {
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
	applied, err := store.Sources(ctx, db, now)
	if err != nil {
		return s, err
	}
	for _, a := range applied {
		if i, ok := at[a.Name]; ok {
			src := &s.Sources[i]
			src.Enabled, src.Slot, src.State, src.Reason, src.Records = a.Enabled, a.Slot, a.State, a.Reason, a.Records
			src.PerMinute, src.Dead, src.Lost, src.Failed24 = a.PerMinute, a.Dead, a.Lost, a.Failed24
			src.Hour = Ends{Late: a.Late1, Skipped: a.Skipped1, Failed: a.Failed1}
		}
	}
	stored, err := store.Positions(ctx, db, slices.Collect(maps.Keys(at)))
	if err != nil {
		return s, err
	}
	next := map[string]map[int32]int64{}
	for _, p := range stored {
		src := &s.Sources[at[p.Source]]
		if src.Topic != p.Topic {
			continue
		}
		if next[p.Source] == nil {
			next[p.Source] = map[int32]int64{}
		}
		next[p.Source][p.Partition] = p.Next
		if p.LastSlot.After(src.Stored) {
			src.Stored = p.LastSlot
		}
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
	if err := s.lag(ctx, kafka, next); err != nil {
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
func Rollups(ctx context.Context, p *spec.Pipeline, db *pgxpool.Pool, now time.Time) ([]rollup.Status, error) {
	var out []rollup.Status
	for _, r := range p.Rollups {
		one, err := rollup.ReadStatus(ctx, db, r, now.UTC())
		if err != nil {
			return nil, fmt.Errorf("read the rollups: %w", err)
		}
		out = append(out, one)
	}
	return out, nil
}

// lag compares the topics' ends with the database's positions; the consumer groups' offsets are not asked.
func (s *Status) lag(ctx context.Context, kafka *kadm.Client, next map[string]map[int32]int64) error {
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
