package spec

import (
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/units"
)

// Pipeline is a whole, validated pipeline.hcl with the source definitions that it names.
// Every reference is resolved to a pointer; nothing in it needs the files any more.
type Pipeline struct {
	redacted
	File            string // path of pipeline.hcl as the user gave it
	FS              fs.FS  // rooted at the folder of pipeline.hcl; file() and definitions come from here
	Name            string // distinguishes the pipelines that share a database
	RequiredVersion string
	Keep            Keep
	Kafka           Kafka
	Database        Database
	Grafana         *Grafana // nil: the pipeline has no grafana block
	Topics          []*Topic
	Tables          []*Table
	Views           []*View
	Aggregates      []*Aggregate
	Roles           []*Role
	Sources         []*Source
	Rollups         []*Rollup
	Folders         []*Folder
	DataSources     []*DataSource
	Dashboards      []*Dashboard
	Alerts          []*Alert
	Removed         []*Removed
}

// DefaultName is the name of a pipeline that has none of its own.
const DefaultName = "main"

// Keep is how much the engine's own tables keep.
type Keep struct {
	Slots, DeadLetters, Gaps time.Duration
	DeadLettersSize          int64 // bytes
}

// Kafka says where the brokers are. Secrets are marked and never printed.
type Kafka struct {
	redacted
	Brokers       []string
	TLS           bool
	SASLMechanism string // "", "plain", "scram-sha-256" or "scram-sha-512"
	SASLUser      string
	SASLPassword  Secret
	GroupPrefix   string // consumer groups and transactional ids are GroupPrefix + source name; default "cryptoviz."
	Buffer        int64  // bytes of records that a process keeps while Kafka does not take them; default 64 MiB
	Range         hcl.Range
}

// Database says where PostgreSQL is.
type Database struct {
	URL       Secret // postgres://… or a keyword/value string; may hold a password
	OnMissing string // no TimescaleDB on the server: "error" or "degrade"
	Range     hcl.Range
}

// Topic is one Kafka topic.
type Topic struct {
	Name        string
	Partitions  int32             // >= 1
	Replication int16             // >= 1
	Config      map[string]string // Kafka's own names and values, e.g. "retention.ms": "604800000"
	Range       hcl.Range
}

// Table is one table, with its hypertable settings or none.
type Table struct {
	Name        string
	Description string
	Columns     []*Column // in declared order
	PrimaryKey  []string
	Indexes     []*Index
	Hypertable  *Hypertable // nil: an ordinary table
	Range       hcl.Range
}

// Column returns the column of that name, or nil.
func (t *Table) Column(name string) *Column {
	for _, c := range t.Columns {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Column is one column of a table.
type Column struct {
	Name        string
	Type        ColumnType
	Null        bool   // true: NULL is allowed
	Default     string // SQL expression, "" for none
	Generated   string // SQL expression of GENERATED ALWAYS AS (…) STORED, "" for none; never written by the engine
	Description string
	Unit        string // "", or what the number measures: "price", "base", "quote", "percent", "index", "count"
	Was         string // the column's name before, "" for none: a live column of that name is renamed
	Range       hcl.Range
}

// ColumnType is one of the column types that the language knows, in PostgreSQL's own spelling.
type ColumnType string

// The column types.
const (
	Timestamptz ColumnType = "timestamptz"
	Text        ColumnType = "text"
	Double      ColumnType = "double precision"
	Numeric     ColumnType = "numeric"
	Bigint      ColumnType = "bigint"
	Integer     ColumnType = "integer"
	Boolean     ColumnType = "boolean"
)

// Index is a secondary index.
type Index struct {
	Name    string // PostgreSQL's name of it: <table>_<column>_…_idx unless given
	Columns []string
	Unique  bool
	Range   hcl.Range
}

// Hypertable says how a table is cut in time. On plain PostgreSQL the same settings mean native range partitions.
type Hypertable struct {
	Time          string        // the time column
	ChunkInterval time.Duration // divides one day, or is a whole number of days
	Retention     time.Duration // chunks that are older are dropped by a policy; 0: none
	Columnstore   *Columnstore  // nil: row store
	Range         hcl.Range
}

// Columnstore is TimescaleDB's compressed, column-wise form of chunks that are old enough.
type Columnstore struct {
	After     time.Duration // age at which the policy converts a chunk
	SegmentBy []string
	OrderBy   []string // column, or "column DESC"
	Range     hcl.Range
}

// View is a plain view.
type View struct {
	Name        string
	Description string
	Query       string // one SELECT
	QueryAt     string // the file that it came from, for messages
	Range       hcl.Range
}

// Aggregate is a TimescaleDB continuous aggregate.
type Aggregate struct {
	Name        string
	Description string
	From        *Table // its hypertable
	Query       string // one SELECT with time_bucket
	QueryAt     string
	RealTime    bool          // unmaterialized rows are added when it is read
	Refresh     *Refresh      // nil: no policy
	Retention   time.Duration // 0: none
	Range       hcl.Range
}

// Refresh is the policy of a continuous aggregate: every Every, the window from Start to End before now is brought up
// to date.
type Refresh struct {
	Start, End time.Duration // before now; Start > End
	Every      time.Duration
	Range      hcl.Range
}

// Role is a database role with what it may do, and nothing else.
type Role struct {
	Name     string
	Login    bool
	Password Secret
	ReadOnly bool          // default_transaction_read_only
	Timeout  time.Duration // statement_timeout; 0: the server's
	Grants   []*Grant
	Range    hcl.Range
}

// Grant gives a role privileges on tables, views and aggregates of the pipeline, or on the engine's own schema.
type Grant struct {
	Privileges []string // lower case: "select", "insert", "update", "delete"
	// names of tables, views and aggregates, each declared in the pipeline; "cryptoviz" is the engine's schema
	On    []string
	Range hcl.Range
}

// Grafana says where Grafana is.
type Grafana struct {
	redacted
	URL string // without credentials
	// a service-account token, or user:password; "": Grafana is left out of the plan, and the plan says so
	Auth    Secret
	Timeout time.Duration // of one request
	Range   hcl.Range
}

// Folder is a Grafana folder. Its uid is "cv-" + Name with "-" for "_".
type Folder struct {
	Name   string
	Title  string
	Parent *Folder // nil: at the root
	Range  hcl.Range
}

// DataSource is Grafana's PostgreSQL data source for the pipeline's database.
type DataSource struct {
	Name        string
	Title       string // its name in Grafana
	UID         string
	Host        string // host:port as Grafana sees it
	Database    string
	User        string
	Password    Secret
	SSLMode     string // disable, require, verify-ca, verify-full
	MinInterval time.Duration
	Default     bool
	Range       hcl.Range
}

// Dashboard is one dashboard from a JSON file.
type Dashboard struct {
	Name   string
	File   string  // path inside Pipeline.FS
	JSON   []byte  // the file: a valid JSON object with a title
	UID    string  // the file's own, or "cv-" + Name with "-" for "_"
	Folder *Folder // nil: at the root
	// what panels without one of their own, and the data source variable, use; nil: as the file says
	DataSource *DataSource
	Range      hcl.Range
}

// Alert is a Grafana alert rule on one SQL query with one number a row; it fires when a number is beyond the threshold.
type Alert struct {
	Name        string
	Title       string
	Folder      *Folder // never nil
	DataSource  *DataSource
	Query       string
	QueryAt     string
	Above       *float64 // exactly one of Above and Below is set
	Below       *float64
	For         time.Duration
	Every       time.Duration // evaluation interval
	NoData      string        // "ok", "alert" or "nodata"
	Labels      map[string]string
	Summary     string
	Description string
	Range       hcl.Range
}

// Removed says that an object which the pipeline made is to be deleted: removing a block alone leaves the object in
// place.
type Removed struct {
	Kind  string // one of Kinds
	Name  string
	Range hcl.Range
}

// Address is kind.name.
func (r *Removed) Address() string { return r.Kind + "." + r.Name }

// Source is one source block with its definition, parameters filled in.
type Source struct {
	Name       string
	Enabled    bool
	Interval   time.Duration // length of a slot; slots are aligned to the epoch, UTC
	Offset     time.Duration // shift of each slot's start within the interval: 0 <= Offset < Interval
	Jitter     time.Duration // upper bound of a delay that is fixed per source (a hash of its name)
	MaxAge     time.Duration // a row of a hypertable whose time lies further back is a dead letter
	Topic      *Topic
	Table      *Table
	Definition *Definition
	Range      hcl.Range
}

// Definition is a sources/*.hcl file: how to get raw records and how a record becomes a row.
// It holds data only; params are already constants in every expression (see Params).
type Definition struct {
	redacted
	File        string // path inside Pipeline.FS, e.g. "sources/binance.hcl"
	Hash        string // 16 hex digits over the file and the params; goes into each record's header
	Description string
	Homepage    string
	Attribution string
	Params      cty.Value // object; the value of `param` when an expression is evaluated
	Secrets     []Secret  // texts and numbers of Params that come from the environment or are declared sensitive
	Poll        *Poll     // exactly one of Poll and Stream is set
	Stream      *Stream
	Decode      Decode
	Row         Row
	Range       hcl.Range
	Text        []byte // the file
}

// Quote returns an expression of the definition as it is written, in one line, and where it stands:
// "sources/desk.hcl:12".
func (d *Definition) Quote(expr hcl.Expression) (text, at string) {
	r := expr.Range()
	if r.Start.Byte <= r.End.Byte && r.End.Byte <= len(d.Text) {
		text = units.Clip(strings.Join(strings.Fields(string(d.Text[r.Start.Byte:r.End.Byte])), " "))
	}
	return text, r.Filename + ":" + strconv.Itoa(r.Start.Line)
}

// Poll is one HTTP request a slot. URL, query and headers are constants: evaluated when the file is read.
type Poll struct {
	redacted
	URL          string
	Query        map[string]string
	Headers      map[string]Secret
	Timeout      time.Duration // of one attempt
	Retries      int           // attempts after the first, inside the slot
	MaxBody      int64         // bytes after decompression
	AllowPrivate []string      // "host:port" that may resolve to a private address
	Budget       *Budget
	Range        hcl.Range
}

// Budget is a request allowance shared by every source that names it.
type Budget struct {
	Name  string
	Limit int // cost units …
	Per   time.Duration
	Cost  int            // … that one request uses
	Used  hcl.Expression // what the server says was used, from `header`; nil for none
}

// Stream is a WebSocket subscription.
type Stream struct {
	redacted
	URL          string
	Subscribe    []string      // text frames, sent in this order after connecting
	Ping         string        // text frame sent each PingEvery; "" sends a WebSocket ping
	PingEvery    time.Duration // 0: never
	Silence      time.Duration // reconnect when no record arrives for this long
	MaxMessage   int64         // bytes
	AllowPrivate []string
	Range        hcl.Range
}

// Decode says how a reply, or one frame of a stream, is cut into records.
// Expressions see `body` (the whole reply) and, Key only, `r` and `key`.
type Decode struct {
	Format  string         // "json" or "html"
	When    hcl.Expression // bool over `body`: the frames that count; nil: all
	Error   hcl.Expression // string or null over `body`: the source reports a failure; nil: never
	OnError []OnError      // json: kinds of failures that the source reports; the first whose When is true counts
	Records Path           // json: where the records are. An array: each element; an object with Keyed: each member
	Keyed   bool           // json: Records is an object keyed by market: the member's name is `key`
	// string over `r` and `key`: the Kafka key, i.e. the market; nil: the object's key, or the source name
	Key    hcl.Expression
	Select string      // html: CSS selector of the records
	Fields []HTMLField // html: the fields of `r`, as text
	Range  hcl.Range
}

// OnError is one kind of failure that a source reports. Expressions see `body`.
type OnError struct {
	When   hcl.Expression // bool
	Text   hcl.Expression // string: what is told
	Market hcl.Expression // string: only this market failed; nil: it is not said
	Effect string         // EffectRetry or EffectLog
}

// What a failure that a source reports does.
const (
	EffectRetry = "retry" // the reply or the connection is of no use: another attempt
	EffectLog   = "log"   // it is told, and what else comes counts
)

// Path is a chain of object members (string) and array indexes (int) into a JSON value; empty means the value itself.
type Path []any

// HTMLField is one field of an HTML record.
type HTMLField struct {
	Name   string
	Select string // CSS selector inside the record; "" is the record itself
	Attr   string // attribute to read; "" reads the text, white space folded
}

// Row holds the row block: for each column an expression over `r`, `key`, `slot` and `param`.
type Row struct {
	Columns map[string]hcl.Expression // by column name; every one exists in the source's table
	Skip    hcl.Expression            // bool: this record is no row; nil: never
	Range   hcl.Range
}

// Rollup is one daily aggregation.
type Rollup struct {
	Name     string
	Schedule string // cron, UTC, 5 fields
	From     *Table
	Into     *Table
	Query    string        // one SELECT with $1 and $2: start and end of the day, timestamptz
	QueryAt  string        // the file that it came from, for messages
	KeepRaw  time.Duration // whole days that the raw rows stay after their day's end
	Late     string        // "merge" or "reject"
	Wait     time.Duration // longest wait for workers that have not passed midnight
	Merge    Merge
	Range    hcl.Range
}

// Merge says how a late partial aggregate joins the stored hour, column by column of Into.
type Merge struct {
	Columns map[string]string // column -> "min" "max" "sum" "first" "last" "mean"; key columns are absent
	Count   string            // column with the number of samples: the weight of "mean"
	First   string            // column with the time of the first sample: orders "first"
	Last    string            // column with the time of the last sample: orders "last"
}

// redacted is in what may hold values from the environment outside a Secret, such as a URL with a key in it: no verb of
// fmt, JSON or slog shows the inside.
type redacted struct{}

// Format hides everything from fmt.
func (redacted) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, notShown) }

// MarshalText hides everything from JSON and slog.
func (redacted) MarshalText() ([]byte, error) { return []byte(notShown), nil }

const notShown = "(not shown: it may hold secrets)"

// Secret is a value that must not be seen. It prints as (sensitive) in every format.
type Secret struct {
	Value string
	unset string // why a declared secret has no value: "the environment variable X is not set"
	null  bool
}

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{Value: value} }

// UnsetSecret is a secret that the file declares and that has no value, and why: "the environment variable X is not
// set".
func UnsetSecret(why string) Secret { return Secret{unset: why} }

// NullSecret is a secret of which the file says "= null".
func NullSecret() Secret { return Secret{null: true} }

// Unset says why a secret that the file declares has no value. What is unset is never removed from an object. "" is a
// secret that has one, and one that the file does not declare.
func (s Secret) Unset() string { return s.unset }

// Null tells whether the file says "= null", the only way to remove a secret from an object.
func (s Secret) Null() bool { return s.null }

// Reveal returns the value itself, for the one place that sends it.
func (s Secret) Reveal() string { return s.Value }

// Sensitive is what a Secret prints.
const Sensitive = "(sensitive)"

// String hides the value.
func (s Secret) String() string { return Sensitive }

// Format hides the value from every verb of fmt, %d and %x too.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Sensitive) }

// MarshalText hides the value from JSON and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Sensitive), nil }

// Place is how plans name a block: file and line.
func Place(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }
