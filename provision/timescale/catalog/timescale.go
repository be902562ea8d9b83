package catalog

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// microseconds makes SQL of an interval, or of a time since 1970, as a whole number; a month has 30 days, as
// TimescaleDB has it. What is too long for a number is as long as one can be: one policy for a million years must not
// be in the way of all else.
func microseconds(expr string) string {
	return "(SELECT CASE WHEN abs(x.s) < 9e12 THEN x.s * 1000000 ELSE sign(x.s) * 9e18 END::bigint FROM (SELECT " +
		"extract(epoch FROM " + expr + ") AS s) x)"
}

// lasting is a number of microseconds as a duration, which at most is 292 years.
func lasting(us int64) time.Duration {
	const most = math.MaxInt64 / int64(time.Microsecond)
	return time.Duration(min(max(us, -most), most)) * time.Microsecond
}

// age makes SQL of an age in a policy's config. Where a hypertable is cut by a number, it is a number, too, and no
// interval.
func age(key string) string {
	return microseconds("CASE WHEN jsonb_typeof(config->'" + key + "') = 'string' THEN (config->>'" + key +
		"')::interval END")
}

// number makes SQL of an age that is a number.
func number(key string) string {
	return "CASE WHEN jsonb_typeof(config->'" + key + "') = 'number' THEN config->>'" + key + "' END"
}

// find returns the relation that a schema and a name mean, if it is among those of the snapshot.
func (s *Snapshot) find(schema, name string) *Relation {
	if r := s.Relations[name]; r != nil && r.Schema == schema {
		return r
	}
	return nil
}

// readTimescale reads hypertables, columnstore settings, policies and aggregates. Catalog tables of TimescaleDB move
// between versions; its information views stay.
func (s *Snapshot) readTimescale(ctx context.Context, tx pgx.Tx) error {
	if err := s.readHypertables(ctx, tx); err != nil {
		return err
	}
	if err := s.readAggregates(ctx, tx); err != nil {
		return err
	}
	if err := s.readJobs(ctx, tx); err != nil {
		return err
	}
	for i := range s.Jobs {
		j := &s.Jobs[i]
		if r := s.find(j.Schema, j.Name); r != nil && r.Hyper != nil {
			switch j.Proc {
			case "policy_retention":
				r.Hyper.Retention = j
			case "policy_compression":
				r.Hyper.Conversion = j
			}
		}
		for _, a := range s.Aggregates {
			user := a.Schema == j.Schema && a.Name == j.Name
			inner := a.StoredSchema == j.Schema && a.StoredName == j.Name
			if j.Proc == "policy_refresh_continuous_aggregate" && (user || inner) {
				a.Refresh = append(a.Refresh, j)
			}
		}
	}
	return nil
}

func (s *Snapshot) readHypertables(ctx context.Context, tx pgx.Tx) error {
	var schema, name string
	var h Hypertable
	var interval *int64
	var usable bool
	found := map[uint32]*Hypertable{}
	err := pg.ForEach(ctx, tx, `SELECT h.hypertable_schema::text, h.hypertable_name::text, d.column_name::text, `+microseconds("d.time_interval")+`, h.num_chunks::int,
		h.compression_enabled, coalesce(has_schema_privilege(n.oid, 'USAGE'), false) FROM timescaledb_information.hypertables h
		JOIN timescaledb_information.dimensions d ON d.hypertable_schema = h.hypertable_schema AND d.hypertable_name = h.hypertable_name AND d.dimension_number = 1
		LEFT JOIN pg_namespace n ON n.nspname = h.hypertable_schema`, nil,
		[]any{&schema, &name, &h.Time, &interval, &h.Chunks, &h.Columnar, &usable}, func() error {
			s.barred = s.barred || !usable
			r := s.find(schema, name)
			if r == nil {
				return nil
			}
			one := h
			if interval != nil { // nil: cut by a number, not by time
				one.interval = lasting(*interval)
			}
			r.Hyper, found[r.OID] = &one, &one
			return nil
		})
	if err != nil || s.Caps.settings == "" || len(found) == 0 {
		return err
	}
	return readSettings(ctx, tx, s.settingsSQL(), found)
}

// settingsSQL reads the columnstore settings of hypertables, from TimescaleDB's view where that can be read.
func (s *Snapshot) settingsSQL() string {
	if !s.barred {
		return "SELECT s.hypertable::oid, coalesce(s.segmentby, ''), coalesce(s.orderby, '') FROM " + s.Caps.settings +
			" s WHERE s.hypertable::oid = ANY($1::bigint[]::oid[])"
	}
	return `SELECT s.relid::oid, coalesce(array_to_string(s.segmentby, ','), ''),
		coalesce((SELECT string_agg(quote_ident(o.name) || CASE WHEN o.falls THEN ' DESC' ELSE '' END ||
			CASE WHEN o.first AND NOT o.falls THEN ' NULLS FIRST' WHEN NOT o.first AND o.falls THEN ' NULLS LAST' ELSE '' END, ',' ORDER BY o.i)
			FROM unnest(s.orderby, s.orderby_desc, s.orderby_nullsfirst) WITH ORDINALITY o(name, falls, first, i)), '')
		FROM _timescaledb_catalog.compression_settings s WHERE s.relid::oid = ANY($1::bigint[]::oid[])`
}

func readSettings(ctx context.Context, tx pgx.Tx, sql string, found map[uint32]*Hypertable) error {
	var oids []int64
	for oid := range found {
		oids = append(oids, int64(oid))
	}
	var oid uint32
	var segment, order string
	return pg.ForEach(ctx, tx, sql, []any{oids}, []any{&oid, &segment, &order}, func() error {
		found[oid].SegmentBy, found[oid].OrderBy = splitNames(segment), splitNames(order)
		return nil
	})
}

// aggregatesFrom is where continuous aggregates are read: TimescaleDB's view where that can be read, else what it
// reads, with the same columns.
func (s *Snapshot) aggregatesFrom() string {
	if !s.barred {
		return "timescaledb_information.continuous_aggregates a"
	}
	return `(SELECT h.schema_name AS hypertable_schema, h.table_name AS hypertable_name, c.user_view_schema AS view_schema, c.user_view_name AS view_name,
		pg_get_userbyid(v.relowner) AS view_owner, c.materialized_only, EXISTS (SELECT FROM _timescaledb_catalog.compression_settings k JOIN pg_class r ON r.oid = k.relid JOIN pg_namespace p ON p.oid = r.relnamespace
			WHERE p.nspname = m.schema_name AND r.relname = m.table_name) AS compression_enabled,
		m.schema_name AS materialization_hypertable_schema, m.table_name AS materialization_hypertable_name,
		(SELECT pg_get_viewdef(d.oid) FROM pg_class d JOIN pg_namespace o ON o.oid = d.relnamespace WHERE o.nspname = c.direct_view_schema AND d.relname = c.direct_view_name) AS view_definition
		FROM _timescaledb_catalog.continuous_agg c JOIN _timescaledb_catalog.hypertable h ON h.id = c.raw_hypertable_id JOIN _timescaledb_catalog.hypertable m ON m.id = c.mat_hypertable_id
		JOIN pg_namespace n ON n.nspname = c.user_view_schema JOIN pg_class v ON v.relnamespace = n.oid AND v.relname = c.user_view_name) a`
}

func (s *Snapshot) readAggregates(ctx context.Context, tx pgx.Tx) error {
	var a AggregateRef
	return pg.ForEach(ctx, tx, `SELECT view_schema::text, view_name::text, hypertable_schema::text, hypertable_name::text,
		materialization_hypertable_schema::text, materialization_hypertable_name::text FROM `+s.aggregatesFrom(), nil,
		[]any{&a.Schema, &a.Name, &a.FromSchema, &a.FromName, &a.StoredSchema, &a.StoredName}, func() error {
			if s.find(a.Schema, a.Name) != nil {
				one := a
				s.Aggregates[a.Name] = &one
			}
			return nil
		})
}

func (s *Snapshot) readJobs(ctx context.Context, tx pgx.Tx) error {
	var j Job
	var every, dropAfter, after, start, end *int64
	orNil := func(us *int64) *time.Duration {
		if us == nil {
			return nil
		}
		return new(lasting(*us))
	}
	// The texts in config are in the style of the session that wrote them: only the cast reads them all.
	// -infinity while the job runs
	return pg.ForEach(ctx, tx,
		`SELECT job_id, proc_name::text, coalesce(hypertable_schema::text, ''), coalesce(hypertable_name::text, ''), scheduled, CASE WHEN isfinite(next_start) THEN next_start END, `+
			microseconds("schedule_interval")+`, `+age("drop_after")+`, `+age("compress_after")+`, `+age("start_offset")+`, `+age("end_offset")+`,
		coalesce(`+number("drop_after")+`, `+number("compress_after")+`, '')
		FROM timescaledb_information.jobs WHERE proc_name IN ('policy_retention', 'policy_compression', 'policy_refresh_continuous_aggregate') ORDER BY job_id`, nil,
		[]any{
			&j.ID, &j.Proc, &j.Schema, &j.Name, &j.Scheduled, &j.Next, &every, &dropAfter, &after, &start, &end,
			&j.number,
		}, func() error {
			one := j
			if every != nil {
				one.Every = lasting(*every)
			}
			one.DropAfter, one.After, one.Start, one.End = orNil(dropAfter), orNil(after), orNil(start), orNil(end)
			s.Jobs = append(s.Jobs, one)
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
