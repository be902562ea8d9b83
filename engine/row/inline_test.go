package row_test

import (
	"bytes"
	"testing"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

const inlinePipeline = `
kafka { brokers = ["localhost:9092"] }
database { url = "postgres://localhost/x" }
source "desk" {
  definition = "desk.hcl"
  interval   = "10s"
  topic      = topic.desk
  table      = table.prices
}
topic "desk" { partitions = 1 }
table "prices" {
  column "time" { type = "timestamptz" }
  column "base" { type = "text" }
  column "quote" {
    type = "text"
    null = true
  }
  column "price" {
    type = "double precision"
    null = true
  }
  primary_key = ["base", "time"]
}
`

// inline is a source whose definition stands in the test; the table has time, base, quote and price.
func inline(t testing.TB, definition string) (*spec.Source, *decode.Decoder, *row.Program) {
	t.Helper()
	p, d := load.Load(fstest.MapFS{"pipeline.hcl": {Data: []byte(inlinePipeline)}, "desk.hcl": {Data: []byte(definition)}}, "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		var said bytes.Buffer
		_ = d.Write(&said, false, 80)
		t.Fatal(&said)
	}
	dec, err := decode.NewDecoder(p.Sources[0])
	if err != nil {
		t.Fatal(err)
	}
	prog, err := row.Compile(p.Sources[0])
	if err != nil {
		t.Fatal(err)
	}
	return p.Sources[0], dec, prog
}

// cell maps one record and returns a column of its row; the error is the dead letter.
func cell(t testing.TB, src *spec.Source, prog *row.Program, p decode.Piece, column string) (any, error) {
	t.Helper()
	var rows row.Rows
	if err := prog.Append(&rows, row.Record{Key: p.Key, Value: p.Value, Fault: p.Fault, Slot: noon}, 0); err != nil {
		return nil, err
	}
	if rows.Len() == 0 {
		return "skipped", nil
	}
	return decodeRow(t, src, prog.Columns(), rows.Slice(0, 1))[column], nil
}
