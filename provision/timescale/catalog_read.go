package timescale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
)

// snapshot is the database at one moment.
type snapshot struct {
	caps       Capabilities
	relations  map[string]*relation // by name: what an unqualified name means, the engine's own left out
	aggregates map[string]*aggregateRef
	jobs       []job
	// There is a hypertable in a schema that the session's user may not use. Some of TimescaleDB's views look up each hypertable
	// by its name, which PostgreSQL then refuses to whoever reads them, also for other hypertables.
	barred bool
}

// relation is a table, or something else with a name among tables.
type relation struct {
	oid          uint32
	schema, name string
	kind         string // pg_class.relkind: r table, p partitioned table, v view, m materialized view, f foreign table
	comment      string
	partKey      string // "RANGE (time)", as PostgreSQL writes it
	rows         int64  // an estimate, chunks and partitions included; -1: never analyzed
	bytes        int64  // the same, without indexes
	columns      []liveColumn
	indexes      []liveIndex
	partial      bool // the text of some column or index was not asked for: see Catalog.whole
	parts        []livePart
	hyper        *hypertable
}

type liveColumn struct {
	num       int16  // pg_attribute.attnum
	name, typ string // typ in the language's spelling, where it knows it
	notNull   bool
	expr      string // of the default, or of GENERATED
	generated bool
	virtual   bool // … when it is read, and stored nowhere: PostgreSQL 18
	identity  bool
	comment   string
}

type liveIndex struct {
	name       string
	constraint string // that it belongs to, "" for none
	primary    bool
	unique     bool
	valid      bool
	columns    []string
	using      string // "" for a plain index over columns, else the text after USING
}

// livePart is a native partition. A zero time is an open bound, or one that is no time.
type livePart struct {
	schema, name string
	from, to     time.Time
	rows         int64 // an estimate; -1: unknown
}

// hypertable is TimescaleDB's side of a table.
type hypertable struct {
	time       string
	interval   time.Duration
	chunks     int
	columnar   bool // the columnstore is on
	segmentBy  []string
	orderBy    []string // "time DESC"
	retention  *job
	conversion *job // policy_compression
}

// aggregateRef is where a continuous aggregate belongs.
type aggregateRef struct {
	schema, name             string
	fromSchema, fromName     string // the hypertable that it reads, or another aggregate's materialization
	storedSchema, storedName string // the hypertable with its rows
	refresh                  []*job
}

// job is a policy of TimescaleDB.
type job struct {
	id           int
	proc         string // policy_retention, policy_compression or policy_refresh_continuous_aggregate
	schema, name string // of the hypertable, or the aggregate
	scheduled    bool
	next         *time.Time
	every        time.Duration
	dropAfter    *time.Duration
	after        *time.Duration // of policy_compression
	start, end   *time.Duration // of a refresh; nil is open
	number       string         // of a table that is cut by a number: dropAfter or after, as it stands in the policy
}

// column returns the column of that name, or nil.
func (r *relation) column(name string) *liveColumn {
	for i := range r.columns {
		if r.columns[i].name == name {
			return &r.columns[i]
		}
	}
	return nil
}

// index returns the index of that name, or nil.
func (r *relation) index(name string) *liveIndex {
	for i := range r.indexes {
		if r.indexes[i].name == name {
			return &r.indexes[i]
		}
	}
	return nil
}

// key returns the primary key's index, or nil.
func (r *relation) key() *liveIndex {
	for i := range r.indexes {
		if r.indexes[i].primary {
			return &r.indexes[i]
		}
	}
	return nil
}

func (s *snapshot) count(kinds ...string) (n int) {
	for _, r := range s.relations {
		for _, k := range kinds {
			if r.kind == k {
				n++
			}
		}
	}
	return n
}

// engineRelations are the engine's own. They may be visible: a database user named cryptoviz has the schema cryptoviz in its path.
var engineRelations = []string{
	"meta", "source", "position", "slot", "slot_day", "dead_letter", "dead_letter_hour", "gap", "rollup_day", "rolled_sample", "rolled_table", "mode", "managed", "pause", "hint",
}

// typeNames maps PostgreSQL's long names to the language's.
var typeNames = map[string]string{"timestamp with time zone": "timestamptz"}

// read reads everything: a few queries, whatever the number of tables.
func (c *Catalog) read(ctx context.Context) (*snapshot, error) {
	s := &snapshot{relations: map[string]*relation{}, aggregates: map[string]*aggregateRef{}}
	c.count()
	err := pgx.BeginTxFunc(ctx, c.DB, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		counted := &countedTx{tx, c}
		var err error
		if s.caps, err = Detect(ctx, counted); err != nil {
			return err
		}
		if err := pg.SetLocal(ctx, counted, "jit", "off"); err != nil { // compiling these queries takes longer than running them
			return err
		}
		if err := s.readAll(ctx, counted, c.concerned()); err != nil {
			return fmt.Errorf("read the database's catalog: %w", err)
		}
		c.count()
		return errRollback
	})
	if errors.Is(err, errRollback) {
		return s, nil
	}
	return nil, c.busy(ctx, err)
}

func (s *snapshot) readAll(ctx context.Context, tx pgx.Tx, concerned nameSet) error {
	// Before plainText: what is visible depends on the session's own search_path.
	byOID, err := s.readRelations(ctx, tx)
	if err != nil {
		return err
	}
	if err := pg.PlainText(ctx, tx); err != nil {
		return err
	}
	if err := s.readParts(ctx, tx, byOID, nameSet(nil).of(s.relations, "r", "p"), concerned.of(s.relations, "r", "p")); err != nil {
		return err
	}
	partitioned := nameSet(nil).of(s.relations, "p")
	if len(partitioned) > 0 {
		if err := readPartitions(ctx, tx, byOID, partitioned); err != nil {
			return err
		}
	}
	if s.caps.Version == "" {
		return nil
	}
	return s.readTimescale(ctx, tx)
}

// readRelations asks for nothing that locks a relation: pg_get_partkeydef and pg_total_relation_size do, and wait for who holds it.
func (s *snapshot) readRelations(ctx context.Context, tx pgx.Tx) (map[uint32]*relation, error) {
	byOID := map[uint32]*relation{}
	var r relation
	err := pg.ForEach(ctx, tx, `SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, coalesce(d.description, ''),
		coalesce((SELECT CASE p.partstrat WHEN 'r' THEN 'RANGE' WHEN 'l' THEN 'LIST' ELSE 'HASH' END || ' (' || string_agg(coalesce(quote_ident(a.attname), 'an expression'), ', ' ORDER BY k.i) || ')'
			FROM pg_partitioned_table p, unnest(p.partattrs::int2[]) WITH ORDINALITY k(num, i) LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num WHERE p.partrelid = c.oid GROUP BY p.partstrat), ''),
		CASE WHEN k.n > 0 AND k.known THEN k.rows WHEN k.n > 0 THEN -1 ELSE c.reltuples::bigint END,
		(coalesce(k.pages, 0) + greatest(c.relpages, 0)) * current_setting('block_size')::bigint
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
		LEFT JOIN LATERAL (SELECT count(*) AS n, bool_and(p.reltuples >= 0) AS known, sum(p.reltuples)::bigint AS rows, sum(p.relpages)::bigint AS pages FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid WHERE i.inhparent = c.oid) k ON true
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND pg_table_is_visible(c.oid)
		AND n.nspname <> 'information_schema' AND n.nspname !~ '^(pg_|_?timescaledb)'
		AND NOT (n.nspname = 'cryptoviz' AND c.relname::text = ANY($1))
		AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')`, []any{engineRelations},
		[]any{&r.oid, &r.schema, &r.name, &r.kind, &r.comment, &r.partKey, &r.rows, &r.bytes}, func() error {
			one := r
			s.relations[r.name], byOID[r.oid] = &one, &one
			return nil
		})
	return byOID, err
}

// readParts reads the columns and indexes of tables, and of some of them also the text of what takes a lock to write down.
func (s *snapshot) readParts(ctx context.Context, tx pgx.Tx, byOID map[uint32]*relation, oids, whole []int64) error {
	if err := readColumns(ctx, tx, byOID, oids, whole); err != nil {
		return err
	}
	return s.readIndexes(ctx, tx, byOID, oids, whole)
}

// readColumns names the relation to pg_get_expr only where it must, for a generated column: it locks it, and would wait for who
// holds it.
func readColumns(ctx context.Context, tx pgx.Tx, byOID map[uint32]*relation, oids, whole []int64) error {
	var oid uint32
	var c liveColumn
	return pg.ForEach(ctx, tx, `SELECT a.attrelid, a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
		coalesce(CASE WHEN a.attgenerated = '' THEN pg_get_expr(e.adbin, 0) WHEN a.attrelid = ANY($2::bigint[]::oid[]) THEN pg_get_expr(e.adbin, e.adrelid) END, ''),
		a.attgenerated <> '', a.attgenerated = 'v', a.attidentity <> '', coalesce(d.description, '')
		FROM pg_attribute a LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
		LEFT JOIN pg_description d ON d.objoid = a.attrelid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum
		WHERE a.attrelid = ANY($1::bigint[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum`, []any{oids, whole},
		[]any{&oid, &c.num, &c.name, &c.typ, &c.notNull, &c.expr, &c.generated, &c.virtual, &c.identity, &c.comment}, func() error {
			if short := typeNames[c.typ]; short != "" {
				c.typ = short
			}
			r := byOID[oid]
			r.columns, r.partial = append(r.columns, c), r.partial || c.generated && c.expr == ""
			return nil
		})
}

// unread stands after USING of an unusual index whose definition was not asked for.
const unread = "a definition that was not read"

// readIndexes asks for the definition of what is no plain index over columns: pg_get_indexdef locks the table, too.
func (s *snapshot) readIndexes(ctx context.Context, tx pgx.Tx, byOID map[uint32]*relation, oids, whole []int64) error {
	var oid uint32
	var x liveIndex
	var keys []int16
	var definition *string
	nullsDiffer := "true"
	if s.caps.Number >= 150000 {
		nullsDiffer = "NOT i.indnullsnotdistinct"
	}
	return pg.ForEach(ctx, tx, `SELECT i.indrelid, c.relname::text, coalesce(k.conname::text, ''), i.indisprimary, i.indisunique, i.indisvalid, i.indkey::int2[],
		CASE WHEN m.amname = 'btree' AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnatts = i.indnkeyatts AND 0 = ALL (i.indoption::int2[]) AND `+nullsDiffer+`
			AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) AS p(num, class, collation_) JOIN pg_opclass o ON o.oid = p.class
				JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = p.num WHERE NOT o.opcdefault OR p.collation_ <> a.attcollation) THEN ''
			WHEN i.indrelid = ANY($2::bigint[]::oid[]) THEN pg_get_indexdef(i.indexrelid) END
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
		LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x') AND k.conrelid = i.indrelid
		WHERE i.indrelid = ANY($1::bigint[]::oid[]) ORDER BY c.relname`, []any{oids, whole},
		[]any{&oid, &x.name, &x.constraint, &x.primary, &x.unique, &x.valid, &keys, &definition}, func() error {
			one, r := x, byOID[oid]
			for _, num := range keys { // 0 is an expression
				if i := slices.IndexFunc(r.columns, func(c liveColumn) bool { return c.num == num }); i >= 0 {
					one.columns = append(one.columns, r.columns[i].name)
				}
			}
			if one.using = unread; definition != nil {
				_, one.using, _ = strings.Cut(*definition, " USING ")
			}
			r.indexes, r.partial = append(r.indexes, one), r.partial || definition == nil
			return nil
		})
}

// readPartitions names no relation to pg_get_expr, which would lock it. It reads times as microseconds: that has room for every
// bound, and infinity, which has no number, is an open one.
func readPartitions(ctx context.Context, tx pgx.Tx, byOID map[uint32]*relation, oids []int64) error {
	var oid uint32
	var p livePart
	var from, to *int64
	bound := func(word string) string {
		at := "substring(k.bound FROM '" + word + " \\(''([^'']+)''\\)')::timestamptz"
		return "CASE WHEN NOT k.times THEN NULL WHEN isfinite(" + at + ") THEN " + microseconds(at) + " END"
	}
	when := func(us *int64) time.Time {
		if us == nil {
			return time.Time{}
		}
		return time.UnixMicro(*us).UTC()
	}
	return pg.ForEach(ctx, tx, `SELECT i.inhparent, n.nspname::text, c.relname::text, c.reltuples::bigint, `+bound("FROM")+`, `+bound("TO")+`
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
		LATERAL (SELECT pg_get_expr(c.relpartbound, 0) AS bound, EXISTS (SELECT FROM pg_partitioned_table t JOIN pg_attribute a ON a.attrelid = t.partrelid AND a.attnum = t.partattrs[0]
			WHERE t.partrelid = i.inhparent AND t.partstrat = 'r' AND t.partnatts = 1 AND a.atttypid = 'timestamptz'::regtype) AS times) k
		WHERE i.inhparent = ANY($1::bigint[]::oid[]) ORDER BY 1, 5 NULLS FIRST`, []any{oids},
		[]any{&oid, &p.schema, &p.name, &p.rows, &from, &to}, func() error {
			one := p
			one.from, one.to = when(from), when(to)
			byOID[oid].parts = append(byOID[oid].parts, one)
			return nil
		})
}
