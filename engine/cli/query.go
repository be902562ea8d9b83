package cli

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/spf13/cobra"
)

func (e *env) newQuery() *cobra.Command {
	var form string
	var limit time.Duration
	c := &cobra.Command{
		Use:   "query SQL",
		Short: "Run a read-only query on the pipeline's database",
		Long: `Run one SQL statement in a read-only transaction on the pipeline's database, or on the one of a running
cryptoviz up, and print the rows. "-" reads the statement from standard input. Times are UTC.`,
		Example: `  cryptoviz query "SELECT * FROM raw_crypto_data ORDER BY time DESC LIMIT 5"
  cryptoviz query --format csv "SELECT * FROM crypto_data_hourly" > hours.csv`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("format", form, "table", "csv", "json"); err != nil {
				return err
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
			p, _, err := e.pipeline()
			if err != nil {
				return err
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
	c.Flags().DurationVar(&limit, "timeout", time.Minute, "longest time that the statement may take")
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
	// The extended protocol takes exactly one statement: a COMMIT cannot be smuggled in behind the query.
	// Every value comes as the server's own text.
	rows, err := tx.Query(ctx, sql, pgx.QueryExecModeCacheDescribe, pgx.QueryResultFormats{pgx.TextFormatCode})
	if err != nil {
		return fmt.Errorf("run the query: %w", queryError(err, sql))
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
		out = &tableRows{w: tabwriter.NewWriter(e.Stdout, 0, 0, 2, ' ', 0), to: e.Stdout}
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
		return fmt.Errorf("run the query: %w", queryError(err, sql))
	}
	return out.end()
}

// queryError shows where the server saw the mistake.
func queryError(err error, sql string) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	text := pg.Message
	if pg.Code == "25006" {
		text += ": cryptoviz query only reads"
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

type tableRows struct {
	w  *tabwriter.Writer
	to io.Writer
	n  int
}

func (t *tableRows) head(fields []pgconn.FieldDescription) error {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	_, err := fmt.Fprintln(t.w, strings.Join(names, "\t"))
	return err
}

func (t *tableRows) row(_ []pgconn.FieldDescription, values [][]byte) error {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = strings.Map(func(r rune) rune { // a terminal must not obey what is stored
			if unicode.IsControl(r) {
				return '\uFFFD'
			}
			return r
		}, string(v))
	}
	t.n++
	_, err := fmt.Fprintln(t.w, strings.Join(texts, "\t"))
	return err
}

func (t *tableRows) end() error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(t.to, "(%s)\n", count(t.n, "row"))
	return err
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

func (j *jsonRows) head([]pgconn.FieldDescription) error {
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
	case json.Valid(v) && slices.Contains([]uint32{pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.Float4OID, pgtype.Float8OID, pgtype.NumericOID, pgtype.JSONOID, pgtype.JSONBOID}, oid):
		return json.RawMessage(v)
	}
	return string(v) // also NaN and infinity, which JSON cannot say as numbers
}

func (j *jsonRows) end() error {
	_, err := io.WriteString(j.w, "\n]\n")
	return err
}
