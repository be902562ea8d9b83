package decode_test

import (
	"errors"
	"testing"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/load"
)

// TestOnError: the first block whose when is true counts, then error; what it says of one market leaves the others alone.
func TestOnError(t *testing.T) {
	t.Parallel()
	p, diags := load.Load(fstest.MapFS{
		"pipeline.hcl": {Data: []byte(`
kafka { brokers = ["localhost:9092"] }
database { url = "postgres://localhost/a" }
topic "a" { partitions = 1 }
source "a" {
  definition = "a.hcl"
  interval   = "1m"
  topic      = topic.a
  table      = table.t
}
table "t" {
  column "time" { type = "timestamptz" }
  primary_key = ["time"]
}`)},
		"a.hcl": {Data: []byte(`
stream { url = "wss://feed.example/ws" }
decode "json" {
  when    = body.data != null
  records = body.data
  key     = r.m
  error   = body.problem
  on_error {
    when   = body.refused != null
    text   = body.why
    market = body.refused
  }
  on_error {
    when   = body.code == 1
    text   = "code 1"
    effect = "log"
  }
  on_error {
    when = body.code == 2
    text = "${body.code}: ${body.why}"
  }
}
row { time = slot }`)},
	}, "pipeline.hcl", load.Options{})
	if diags.HasErrors() {
		t.Fatal(diags.Diags)
	}
	dec, err := decode.NewDecoder(p.Sources[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		body    string
		records int
		want    *decode.SourceError
	}{
		{`{"data":[{"m":"A"},{"m":"B"}]}`, 2, nil},
		{`{"hello":1}`, 0, nil},
		{`{"refused":"GONE","why":"unknown"}`, 0, &decode.SourceError{Message: "unknown", Market: "GONE", Effect: "log"}},
		{`{"refused":"GONE","why":"unknown","data":[{"m":"A"}]}`, 1, &decode.SourceError{Message: "unknown", Market: "GONE", Effect: "log"}},
		{`{"refused":"GONE","why":"unknown","data":7}`, 0, &decode.SourceError{Message: "unknown", Market: "GONE", Effect: "log"}},
		{`{"refused":["x"]}`, 0, &decode.SourceError{Message: "(no text)", Effect: "log"}},
		{`{"code":1,"problem":"not this","data":[{"m":"A"}]}`, 1, &decode.SourceError{Message: "code 1", Effect: "log"}},
		{`{"code":2,"why":"login","data":[{"m":"A"}]}`, 0, &decode.SourceError{Message: "2: login", Effect: "retry"}},
		{`{"code":3,"problem":"down","data":[{"m":"A"}]}`, 0, &decode.SourceError{Message: "down"}},
		{`{"problem":"","data":[{"m":"A"}]}`, 1, nil},
	} {
		pieces, err := dec.Records([]byte(c.body))
		said, ok := errors.AsType[*decode.SourceError](err)
		if len(pieces) != c.records || ok != (c.want != nil) || ok && *said != *c.want || !ok && err != nil {
			t.Errorf("%s: %d records, %#v; want %d, %#v", c.body, len(pieces), err, c.records, c.want)
		}
	}
}
