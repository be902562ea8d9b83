package cli

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/spf13/cobra"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/terminal"
)

func (e *env) newQuery() *cobra.Command {
	var form string
	var limit time.Duration
	c := &cobra.Command{
		Use:   "query SQL",
		Short: "Run a read-only query on the pipeline's database",
		Long: `Run one SELECT, WITH, VALUES, TABLE, SHOW or EXPLAIN in a read-only transaction on the pipeline's database, or on
the one of a running cryptoviz up, where a role that may only read runs it, and print the rows. "-" reads the statement
from standard input. Times are UTC.`,
		Example: `  cryptoviz query "SELECT * FROM raw_crypto_data ORDER BY time DESC LIMIT 5"
  cryptoviz query --format csv "SELECT * FROM crypto_data_hourly" > hours.csv`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("format", form, "table", "csv", "json"); err != nil {
				return err
			}
			if limit != 0 && limit < time.Millisecond {
				return fmt.Errorf("--timeout %s is too short: at least 1ms, or 0 for no limit", limit)
			}
			sql := args[0]
			if sql == "-" {
				text, err := io.ReadAll(io.LimitReader(e.Stdin, 1<<20))
				if err != nil {
					return fmt.Errorf("read the statement: %w", err)
				}
				sql = string(text)
			}
			if strings.TrimSpace(sql) == "" {
				return errors.New("the statement is empty: write cryptoviz query \"SELECT …\"")
			}
			p, running, err := e.pipeline()
			if err != nil {
				return err
			}
			if running != nil {
				p.Database.URL = spec.NewSecret(running.Data.ReaderURL())
			}
			db, err := e.database(cmd.Context(), p)
			if err != nil {
				return err
			}
			defer db.Close()
			conn, err := db.Acquire(cmd.Context())
			if err != nil {
				return fmt.Errorf("open the database: %w", err)
			}
			defer conn.Release()
			return e.query(cmd.Context(), conn.Conn(), sql, form, limit)
		},
	}
	c.Flags().StringVar(&form, "format", "table", "`FORM` of the output: table, csv or json")
	c.Flags().DurationVar(&limit, "timeout", time.Minute, "longest time that the statement may take; 0 for no limit")
	return c
}

func (e *env) query(ctx context.Context, conn *pgx.Conn, sql, form string, limit time.Duration) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("run the query: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", limit.Milliseconds())); err != nil {
		return fmt.Errorf("run the query: %w", err)
	}
	if err := onlyReads(ctx, tx.Conn(), sql, limit); err != nil {
		return fmt.Errorf("run the query: %w", err)
	}
	// The extended protocol takes exactly one statement: a COMMIT cannot be smuggled in behind the query.
	// Every value comes as the server's own text.
	rows, err := tx.Query(ctx, sql, pgx.QueryExecModeCacheDescribe, pgx.QueryResultFormats{pgx.TextFormatCode})
	if err != nil {
		return fmt.Errorf("run the query: %w", queryError(err, sql, limit))
	}
	defer rows.Close()
	fields := rows.FieldDescriptions()
	var out rowWriter
	switch form {
	case "csv":
		w := csv.NewWriter(e.Stdout)
		out = &csvRows{w}
	case "json":
		out = &jsonRows{w: e.Stdout}
	default:
		out = &tableRows{w: bufio.NewWriter(e.Stdout)}
	}
	if err := out.head(fields); err != nil {
		return err
	}
	for rows.Next() {
		if err := out.row(fields, rows.RawValues()); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("run the query: %w", queryError(err, sql, limit))
	}
	return out.end()
}

// onlyReads has the server say whether a statement is a query: others may do what a read-only transaction does not
// forbid, as COPY … TO PROGRAM runs a program. PREPARE takes no other; SHOW and EXPLAIN, which it does not take, only
// read.
func onlyReads(ctx context.Context, conn *pgx.Conn, sql string, limit time.Duration) error {
	text := strings.TrimSpace(sql)
	word := text[:len(text)-len(strings.TrimLeftFunc(text, unicode.IsLetter))]
	if strings.EqualFold(word, "show") || strings.EqualFold(word, "explain") {
		return nil
	}
	const prepare = "PREPARE cryptoviz_query AS "
	_, err := conn.PgConn().ExecParams(ctx, prepare+sql, nil, nil, nil, nil).Close() // as the query: one statement
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		pg.Position -= int32(len(prepare))
		if start := len([]rune(sql[:strings.Index(sql, text)])); pg.Code == "42601" && int(pg.Position) == start+1 {
			return fmt.Errorf("cryptoviz query runs SELECT, WITH, VALUES, TABLE, SHOW and EXPLAIN, and "+
				"nothing else: %w", queryError(err, sql, limit))
		}
	}
	if err != nil {
		return queryError(err, sql, limit)
	}
	return nil
}

// queryError shows where the server saw the mistake.
func queryError(err error, sql string, limit time.Duration) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	text := pg.Message
	if pg.Code == "25006" {
		text += ": cryptoviz query only reads"
	}
	if pg.Code == "57014" && strings.Contains(pg.Message, "statement timeout") {
		text += fmt.Sprintf(": it took longer than %s; give it more time with --timeout", limit)
	}
	if runes := []rune(sql); pg.Position > 0 && int(pg.Position) <= len(runes) {
		before := string(runes[:pg.Position-1])
		line := before[strings.LastIndexByte(before, '\n')+1:]
		rest, _, _ := strings.Cut(string(runes[pg.Position-1:]), "\n")
		text += fmt.Sprintf("\n  %s%s\n  %s^", line, rest, strings.Repeat(" ", len([]rune(line))))
	}
	if pg.Hint != "" {
		text += "\n  hint: " + pg.Hint
	}
	return errors.New(text)
}

// rowWriter writes rows of values in text form; nil is NULL.
type rowWriter interface {
	head(fields []pgconn.FieldDescription) error
	row(fields []pgconn.FieldDescription, values [][]byte) error
	end() error
}

// tableRows keeps the first rows, which say how wide the columns are, and passes the others on: a result may be of any
// size.
type tableRows struct {
	w      *bufio.Writer
	kept   [][]string // the names, and the first rows; nil when they are written
	widths []int
	n      int
}

// measured is how many rows decide on the widths.
const measured = 1000

func (t *tableRows) head(fields []pgconn.FieldDescription) error {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = cell(f.Name)
	}
	t.kept = [][]string{names}
	return nil
}

func (t *tableRows) row(_ []pgconn.FieldDescription, values [][]byte) error {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = cell(string(v))
	}
	t.n++
	if t.n > measured {
		return t.write(texts)
	}
	if t.kept = append(t.kept, texts); t.n == measured {
		return t.release()
	}
	return nil
}

// cell is a text in a line.
func cell(text string) string { return terminal.Visible(lineBreaks.Replace(text)) }

var lineBreaks = strings.NewReplacer("\n", `\n`, "\r", `\r`, "\t", `\t`)

// release writes what was kept.
func (t *tableRows) release() error {
	t.widths = make([]int, len(t.kept[0]))
	for _, texts := range t.kept {
		for i, text := range texts {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(text))
		}
	}
	for _, texts := range t.kept {
		if err := t.write(texts); err != nil {
			return err
		}
	}
	t.kept = nil
	return nil
}

func (t *tableRows) write(texts []string) error {
	for i, text := range texts {
		_, _ = t.w.WriteString(text)
		if i < len(texts)-1 {
			_, _ = t.w.WriteString(strings.Repeat(" ", max(0, t.widths[i]-utf8.RuneCountInString(text))+2))
		}
	}
	return t.w.WriteByte('\n') // it remembers an error of before
}

func (t *tableRows) end() error {
	if t.kept != nil {
		if err := t.release(); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(t.w, "(%s)\n", count(t.n, "row"))
	return t.w.Flush()
}

type csvRows struct{ w *csv.Writer }

func (c *csvRows) head(fields []pgconn.FieldDescription) error {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return c.w.Write(names)
}

func (c *csvRows) row(_ []pgconn.FieldDescription, values [][]byte) error {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return c.w.Write(texts)
}

func (c *csvRows) end() error {
	c.w.Flush()
	return c.w.Error()
}

// jsonRows writes an array with one object a line.
type jsonRows struct {
	w io.Writer
	n int
}

// head refuses names that an object could not hold both of.
func (j *jsonRows) head(fields []pgconn.FieldDescription) error {
	seen := map[string]bool{}
	for _, f := range fields {
		if seen[f.Name] {
			return fmt.Errorf("two columns are named %q, and JSON would hold one of them: give one another "+
				"name with AS", f.Name)
		}
		seen[f.Name] = true
	}
	_, err := io.WriteString(j.w, "[")
	return err
}

func (j *jsonRows) row(fields []pgconn.FieldDescription, values [][]byte) error {
	var line strings.Builder
	if j.n > 0 {
		line.WriteByte(',')
	}
	line.WriteString("\n  {")
	for i, v := range values {
		if i > 0 {
			line.WriteString(", ")
		}
		name, err := json.Marshal(fields[i].Name)
		if err != nil {
			return err
		}
		value, err := json.Marshal(jsonValue(fields[i].DataTypeOID, v))
		if err != nil {
			return err
		}
		line.Write(name)
		line.WriteString(": ")
		line.Write(value)
	}
	line.WriteString("}")
	j.n++
	_, err := io.WriteString(j.w, line.String())
	return err
}

// jsonValue keeps numbers, booleans and JSON as what they are; everything else is a string.
func jsonValue(oid uint32, v []byte) any {
	switch {
	case v == nil:
		return nil
	case oid == pgtype.BoolOID:
		return string(v) == "t"
	case json.Valid(v) && slices.Contains([]uint32{
		pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.Float4OID,
		pgtype.Float8OID, pgtype.NumericOID, pgtype.JSONOID, pgtype.JSONBOID,
	}, oid):
		return json.RawMessage(v)
	}
	return string(v) // also NaN and infinity, which JSON cannot say as numbers
}

func (j *jsonRows) end() error {
	_, err := io.WriteString(j.w, "\n]\n")
	return err
}
