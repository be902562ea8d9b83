package timescale

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// microseconds makes SQL of an interval as a whole number; a month has 30 days, as TimescaleDB has it.
func microseconds(expr string) string { return "(extract(epoch FROM " + expr + ") * 1000000)::bigint" }

// readTimescale reads hypertables, columnstore settings, policies and aggregates. Catalog tables of TimescaleDB move between
// versions; its information views stay.
func (s *snapshot) readTimescale(ctx context.Context, tx pgx.Tx) error {
	find := func(schema, name string) *relation {
		if r := s.relations[name]; r != nil && r.schema == schema {
			return r
		}
		return nil
	}
	settings, join := "'', ''", ""
	if s.caps.settings != "" {
		settings = "coalesce(s.segmentby, ''), coalesce(s.orderby, '')"
		join = " LEFT JOIN " + s.caps.settings + " s ON s.hypertable = to_regclass(format('%I.%I', h.hypertable_schema, h.hypertable_name))"
	}
	var schema, name, segment, order string
	var h hypertable
	var interval *int64
	err := forEach(ctx, tx, `SELECT h.hypertable_schema::text, h.hypertable_name::text, d.column_name::text, `+microseconds("d.time_interval")+`, h.num_chunks::int,
		h.compression_enabled, `+settings+` FROM timescaledb_information.hypertables h
		JOIN timescaledb_information.dimensions d ON d.hypertable_schema = h.hypertable_schema AND d.hypertable_name = h.hypertable_name AND d.dimension_number = 1`+join, nil,
		[]any{&schema, &name, &h.time, &interval, &h.chunks, &h.columnar, &segment, &order}, func() error {
			r := find(schema, name)
			if r == nil {
				return nil
			}
			one := h
			if interval != nil { // nil: cut by a number, not by time
				one.interval = time.Duration(*interval) * time.Microsecond
			}
			one.segmentBy, one.orderBy = splitNames(segment), splitNames(order)
			r.hyper = &one
			return nil
		})
	if err != nil {
		return err
	}
	if err := s.readAggregates(ctx, tx); err != nil {
		return err
	}
	if err := s.readJobs(ctx, tx); err != nil {
		return err
	}
	for i := range s.jobs {
		j := &s.jobs[i]
		if r := find(j.schema, j.name); r != nil && r.hyper != nil {
			switch j.proc {
			case "policy_retention":
				r.hyper.retention = j
			case "policy_compression":
				r.hyper.conversion = j
			}
		}
		for _, a := range s.aggregates {
			user := a.schema == j.schema && a.name == j.name
			inner := a.storedSchema == j.schema && a.storedName == j.name
			if j.proc == "policy_refresh_continuous_aggregate" && (user || inner) {
				a.refresh = append(a.refresh, j)
			}
		}
	}
	return nil
}

func (s *snapshot) readAggregates(ctx context.Context, tx pgx.Tx) error {
	var a aggregateRef
	return forEach(ctx, tx, `SELECT view_schema::text, view_name::text, hypertable_schema::text, hypertable_name::text,
		materialization_hypertable_schema::text, materialization_hypertable_name::text FROM timescaledb_information.continuous_aggregates`, nil,
		[]any{&a.schema, &a.name, &a.fromSchema, &a.fromName, &a.storedSchema, &a.storedName}, func() error {
			if r := s.relations[a.name]; r != nil && r.schema == a.schema {
				one := a
				s.aggregates[a.name] = &one
			}
			return nil
		})
}

func (s *snapshot) readJobs(ctx context.Context, tx pgx.Tx) error {
	var j job
	var every, dropAfter, after, start, end *int64
	span := func(us *int64) *time.Duration {
		if us == nil {
			return nil
		}
		return new(time.Duration(*us) * time.Microsecond)
	}
	// The texts in config are in the style of the session that wrote them: only the cast reads them all.
	return forEach(ctx, tx, `SELECT job_id, proc_name::text, coalesce(hypertable_schema::text, ''), coalesce(hypertable_name::text, ''), scheduled, CASE WHEN isfinite(next_start) THEN next_start END, `+ // -infinity while the job runs
		microseconds("schedule_interval")+`, `+microseconds("(config->>'drop_after')::interval")+`, `+microseconds("(config->>'compress_after')::interval")+`, `+
		microseconds("(config->>'start_offset')::interval")+`, `+microseconds("(config->>'end_offset')::interval")+`
		FROM timescaledb_information.jobs WHERE proc_name IN ('policy_retention', 'policy_compression', 'policy_refresh_continuous_aggregate') ORDER BY job_id`, nil,
		[]any{&j.id, &j.proc, &j.schema, &j.name, &j.scheduled, &j.next, &every, &dropAfter, &after, &start, &end}, func() error {
			one := j
			if every != nil {
				one.every = time.Duration(*every) * time.Microsecond
			}
			one.dropAfter, one.after, one.start, one.end = span(dropAfter), span(after), span(start), span(end)
			s.jobs = append(s.jobs, one)
			return nil
		})
}

// splitNames reads a list of columns as TimescaleDB writes it: `"time" DESC,v`. Quotes go; the words after a name stay.
func splitNames(list string) (out []string) {
	if strings.TrimSpace(list) == "" {
		return nil
	}
	quoted, start := false, 0
	cut := func(part string) {
		part = strings.TrimSpace(part)
		if rest, is := strings.CutPrefix(part, `"`); is {
			if end := strings.LastIndexByte(rest, '"'); end >= 0 {
				part = strings.ReplaceAll(rest[:end], `""`, `"`) + rest[end+1:]
			}
		}
		out = append(out, part)
	}
	for i := range len(list) {
		switch list[i] {
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				cut(list[start:i])
				start = i + 1
			}
		}
	}
	cut(list[start:])
	return out
}
