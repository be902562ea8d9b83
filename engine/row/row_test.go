package row_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

const root = "../.."

var noon = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

func shipped(t testing.TB) *spec.Pipeline {
	t.Helper()
	p, d := load.Load(os.DirFS(root), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		t.Fatal(d.Diags)
	}
	return p
}

// decodeRow reads a binary COPY row back: nil, float64, int64, string, bool or time.Time.
func decodeRow(t testing.TB, src *spec.Source, columns []string, row []byte) map[string]any {
	t.Helper()
	if n := binary.BigEndian.Uint16(row); int(n) != len(columns) {
		t.Fatalf("row has %d fields, want %d", n, len(columns))
	}
	out, at := map[string]any{}, 2
	for _, name := range columns {
		n := int(int32(binary.BigEndian.Uint32(row[at:])))
		at += 4
		if n < 0 {
			out[name] = nil
			continue
		}
		field := row[at : at+n]
		at += n
		switch src.Table.Column(name).Type {
		case spec.Double:
			out[name] = math.Float64frombits(binary.BigEndian.Uint64(field))
		case spec.Timestamptz:
			out[name] = time.UnixMicro(int64(binary.BigEndian.Uint64(field)) + 946_684_800_000_000).UTC()
		case spec.Integer:
			out[name] = int64(int32(binary.BigEndian.Uint32(field)))
		case spec.Bigint:
			out[name] = int64(binary.BigEndian.Uint64(field))
		case spec.Boolean:
			out[name] = field[0] == 1
		default:
			out[name] = string(field)
		}
	}
	if at != len(row) {
		t.Fatalf("row has %d bytes more", len(row)-at)
	}
	return out
}

func fixture(t testing.TB, name string) [][]byte {
	t.Helper()
	for _, ext := range []string{".reply.json", ".reply.html"} {
		if b, err := os.ReadFile(filepath.Join(root, "sources", name+ext)); err == nil {
			return [][]byte{b}
		}
	}
	b, err := os.ReadFile(filepath.Join(root, "sources", name+".frames.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSpace(b), []byte("\n"))
}

// TestFixtures maps each shipped source's fixture to exactly its rows.
func TestFixtures(t *testing.T) {
	t.Parallel()
	for _, src := range shipped(t).Sources {
		t.Run(src.Name, func(t *testing.T) {
			dec, err := decode.NewDecoder(src)
			if err != nil {
				t.Fatal(err)
			}
			prog, err := row.Compile(src)
			if err != nil {
				t.Fatal(err)
			}
			var rows row.Rows
			for _, body := range fixture(t, src.Name) {
				pieces, err := dec.Records(body)
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range pieces {
					if err := prog.Append(&rows, row.Record{Key: p.Key, Value: p.Value, Slot: noon}, int32(i)); err != nil {
						t.Fatalf("%s: %v", p.Key, err)
					}
				}
			}
			text, err := os.ReadFile(filepath.Join(root, "sources", src.Name+".rows.json"))
			if err != nil {
				t.Fatal(err)
			}
			var want []map[string]any
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			if rows.Len() != len(want) {
				t.Fatalf("%d rows, want %d", rows.Len(), len(want))
			}
			for i, w := range want {
				got := decodeRow(t, src, prog.Columns(), rows.Slice(i, i+1))
				for name, g := range got {
					same := g == w[name]
					switch g := g.(type) {
					case float64:
						f, _ := w[name].(float64)
						same = math.Abs(g-f) <= 1e-9*math.Abs(f)
					case int64:
						same = float64(g) == w[name]
					case time.Time:
						at, err := time.Parse(time.RFC3339, w[name].(string))
						same = err == nil && g.Equal(at)
					}
					if !same {
						t.Errorf("row %d: %s = %v, want %v", i, name, g, w[name])
					}
				}
			}
		})
	}
}

// reference evaluates a row with HCL alone, over the whole record; ok is false where it would be poison.
func reference(src *spec.Source, rec row.Record) (row map[string]cty.Value, skip, ok bool) {
	ty, err := ctyjson.ImpliedType(rec.Value)
	if err != nil {
		return nil, false, false
	}
	r, err := ctyjson.Unmarshal(rec.Value, ty)
	if err != nil {
		return nil, false, false
	}
	ctx := &hcl.EvalContext{Functions: expr.RowFunctions(), Variables: map[string]cty.Value{
		"key": cty.StringVal(rec.Key), "slot": cty.StringVal(rec.Slot.Format(expr.TimeFormat)), "param": src.Definition.Params, "source": cty.StringVal(src.Name),
	}}
	eval := func(e hcl.Expression) (cty.Value, bool) {
		v := r
		for _, tr := range e.Variables() {
			if tr.RootName() == "r" {
				v = fill(v, tr[1:])
			}
		}
		ctx.Variables["r"] = v
		out, diags := e.Value(ctx)
		if diags.HasErrors() {
			null := strings.Contains(diags[0].Detail, "must not be null") || strings.Contains(diags[0].Detail, "value is null")
			return cty.NullVal(cty.DynamicPseudoType), null
		}
		return out, true
	}
	if e := src.Definition.Row.Skip; e != nil {
		v, ok := eval(e)
		if !ok {
			return nil, false, false
		}
		if !v.IsNull() && v.Type() == cty.Bool && v.True() {
			return nil, true, true
		}
	}
	row = map[string]cty.Value{}
	for name, e := range src.Definition.Row.Columns {
		v, ok := eval(e)
		if !ok {
			return nil, false, false
		}
		row[name] = v
	}
	return row, false, true
}

// fill returns v with null where the path leads nowhere.
func fill(v cty.Value, path hcl.Traversal) cty.Value {
	if len(path) == 0 {
		return v
	}
	switch step := path[0].(type) {
	case hcl.TraverseAttr:
		attrs := map[string]cty.Value{}
		if !v.IsNull() && v.Type().IsObjectType() {
			attrs = v.AsValueMap()
			if attrs == nil {
				attrs = map[string]cty.Value{}
			}
		}
		inner, found := attrs[step.Name]
		if !found {
			inner = cty.NullVal(cty.DynamicPseudoType)
		}
		attrs[step.Name] = fill(inner, path[1:])
		return cty.ObjectVal(attrs)
	case hcl.TraverseIndex:
		i64, _ := step.Key.AsBigFloat().Int64()
		var list []cty.Value
		if !v.IsNull() && v.Type().IsTupleType() {
			list = v.AsValueSlice()
		}
		for len(list) <= int(i64) {
			list = append(list, cty.NullVal(cty.DynamicPseudoType))
		}
		list[i64] = fill(list[i64], path[1:])
		return cty.TupleVal(list)
	}
	return v
}

// compare maps one record both ways.
func compare(t *testing.T, src *spec.Source, prog *row.Program, rec row.Record) {
	t.Helper()
	want, skip, ok := reference(src, rec)
	var rows row.Rows
	err := prog.Append(&rows, rec, 0)
	if !ok {
		if err == nil {
			t.Fatalf("%s: %q: HCL refuses it, the compiled program gives a row", src.Name, rec.Value)
		}
		return
	}
	if skip {
		if err != nil || rows.Len() != 0 {
			t.Fatalf("%s: %q: HCL skips it, the compiled program gives %d rows, %v", src.Name, rec.Value, rows.Len(), err)
		}
		return
	}
	if err != nil { // HCL has a value; it must be one that the column cannot take
		var poison *row.Error
		if !errors.As(err, &poison) || fits(src.Table.Column(poison.Column), want[poison.Column]) {
			t.Fatalf("%s: %q: HCL gives %#v, the compiled program %v", src.Name, rec.Value, want[poison.Column], err)
		}
		return
	}
	for name, got := range decodeRow(t, src, prog.Columns(), rows.Slice(0, 1)) {
		w, col := want[name], src.Table.Column(name)
		if w.IsNull() || (w.Type() == cty.String && w.AsString() == "") {
			if got != nil {
				t.Fatalf("%s: %q: %s: HCL null, compiled %v", src.Name, rec.Value, name, got)
			}
			continue
		}
		if !fits(col, w) {
			t.Fatalf("%s: %q: %s: HCL %#v does not fit %s, compiled %v", src.Name, rec.Value, name, w, col.Type, got)
		}
		switch got := got.(type) {
		case float64:
			x, _ := number(w)
			if math.Abs(got-x) > 8*math.Abs(x)*0x1p-52 {
				// a difference of near equals loses digits: compare with the size of what was subtracted
				if col.Name != "change_24h_pct" || math.Abs(got-x) > 1e-9*math.Max(1, math.Abs(x)) {
					t.Fatalf("%s: %q: %s: HCL %v, compiled %v", src.Name, rec.Value, name, x, got)
				}
			}
		case string:
			if s := w; s.Type() == cty.String && s.AsString() != got {
				t.Fatalf("%s: %q: %s: HCL %q, compiled %q", src.Name, rec.Value, name, s.AsString(), got)
			}
		case time.Time:
			if at, err := expr.ParseTime(w.AsString()); err != nil || !at.Equal(got) {
				t.Fatalf("%s: %q: %s: HCL %s, compiled %v", src.Name, rec.Value, name, w.AsString(), got)
			}
		}
	}
}

func number(v cty.Value) (float64, bool) {
	switch v.Type() {
	case cty.Number:
		f, _ := v.AsBigFloat().Float64()
		return f, !math.IsInf(f, 0)
	case cty.String:
		x, err := units.ParseNumber(v.AsString())
		if err != nil {
			return 0, false
		}
		f, _ := x.Float64()
		return f, !math.IsInf(f, 0)
	}
	return 0, false
}

// fits tells whether a column can hold HCL's value.
func fits(c *spec.Column, v cty.Value) bool {
	if c == nil || !v.IsKnown() {
		return false
	}
	if v.IsNull() || (v.Type() == cty.String && v.AsString() == "") {
		return c.Null
	}
	switch c.Type {
	case spec.Double:
		_, ok := number(v)
		return ok
	case spec.Timestamptz:
		if v.Type() != cty.String {
			return false
		}
		_, err := expr.ParseTime(v.AsString())
		return err == nil
	case spec.Text:
		return (v.Type() == cty.String && !strings.ContainsRune(v.AsString(), 0)) || v.Type() == cty.Number || v.Type() == cty.Bool
	}
	return false
}

// FuzzRow maps mutated records of every shipped JSON source by the compiled program and by HCL.
func FuzzRow(f *testing.F) {
	p := shipped(f)
	var sources []*spec.Source
	var programs []*row.Program
	for _, src := range p.Sources {
		if src.Definition.Decode.Format != "json" {
			continue
		}
		prog, err := row.Compile(src)
		if err != nil {
			f.Fatal(err)
		}
		dec, err := decode.NewDecoder(src)
		if err != nil {
			f.Fatal(err)
		}
		for _, body := range fixture(f, src.Name) {
			pieces, _ := dec.Records(body)
			for _, piece := range pieces {
				f.Add(uint8(len(sources)), piece.Key, piece.Value)
			}
		}
		sources, programs = append(sources, src), append(programs, prog)
	}
	for _, s := range []string{
		`{}`, `[]`, `null`, `{"symbol":"","lastPrice":""}`, `{"symbol":"BTCUSDT","lastPrice":1e400,"closeTime":1}`, `{"price":"0x1p4","time":"2026-10-01T12:00:00.123456789Z","product_id":"A-B"}`,
		`{"c":["1"],"b":"2","a":null,"v":[1]}`, `{"instId":"BTC-USDT","ts":"1e3","last":"5","open24h":"0"}`, `{"count":0}`, `{"count":0.0}`, `{"count":"0"}`,
	} {
		for i := range sources {
			f.Add(uint8(i), "XXBTZUSD", []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, key string, raw []byte) {
		i := int(which) % len(sources)
		if strings.ContainsRune(key, 0) || !plainJSON(raw) {
			return
		}
		compare(t, sources[i], programs[i], row.Record{Key: key, Value: raw, Slot: noon})
	})
}

// plainJSON refuses what is no difference of meaning: cty normalises text (NFC) and keeps the first of two names.
func plainJSON(raw []byte) bool {
	return json.Valid(raw) && !bytes.Contains(raw, []byte(`\u`)) && !duplicateNames(raw)
}

// duplicateNames also refuses what is not ASCII, which cty normalises, and numbers that big.Float and we bound differently.
func duplicateNames(raw []byte) bool {
	for _, c := range raw {
		if c >= 0x80 {
			return true
		}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var stack []map[string]bool
	name := false
	for {
		tok, err := dec.Token()
		if err != nil {
			return false
		}
		if n, ok := tok.(json.Number); ok && !units.IsNumber(n.String()) {
			return true
		}
		switch tok {
		case json.Delim('{'):
			stack, name = append(stack, map[string]bool{}), true
			continue
		case json.Delim('['):
			stack, name = append(stack, nil), false
			continue
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
			name = len(stack) > 0 && stack[len(stack)-1] != nil
			continue
		}
		if len(stack) == 0 || stack[len(stack)-1] == nil {
			continue
		}
		if name {
			s, _ := tok.(string)
			if stack[len(stack)-1][s] {
				return true
			}
			stack[len(stack)-1][s] = true
		}
		name = !name
	}
}

func TestPoison(t *testing.T) {
	t.Parallel()
	p := shipped(t)
	prog, err := row.Compile(p.Sources[0])
	if err != nil {
		t.Fatal(err)
	}
	good := `{"symbol":"BTCUSDT","lastPrice":"1.5","closeTime":1790855999123,"bidPrice":"","count":3}`
	for raw, want := range map[string]string{
		good: "", `{"symbol":"BTCUSDT","closeTime":1790855999123}`: "column price: the value is missing",
		`{"symbol":"BTCUSDT","lastPrice":"abc","closeTime":1790855999123}`:   `column price: "abc" is not a number`,
		`{"symbol":"???","lastPrice":"1","closeTime":1790855999123}`:         `column base: market "???" has something in it that is in no currency's name`,
		`{"symbol":"BTCUSDT","lastPrice":"1","closeTime":-5}`:                "column time: the time 1969-12-31T23:59:59Z lies outside 1971 to 2261",
		`{"symbol":"BTCUSDT","lastPrice":"1e999","closeTime":1790855999123}`: "column price: ",
		`{"symbol":"BTCUSDT","lastPrice":{"a":1},"closeTime":1790855999123}`: "column price: it is an object",
		`not json`: "not JSON at byte 0", ``: "not JSON", `{"symbol":"BTCUSDT"`: "cut short",
		`{"symbol":"BTC\u0000/USDT","lastPrice":"1","closeTime":1790855999123}`: `market "BTC\x00/USDT" has something in it`,
	} {
		rows := row.Rows{Data: []byte("kept"), Ends: []int{4}, Times: []int64{1}, Source: []int32{0}}
		err := prog.Append(&rows, row.Record{Key: "BTCUSDT", Value: []byte(raw), Slot: noon}, 1)
		if want == "" {
			if err != nil || rows.Len() != 2 || rows.Times[1] != 1790855999123000 {
				t.Errorf("%s: %v, %d rows, %v", raw, err, rows.Len(), rows.Times)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", raw, err, want)
		}
		if string(rows.Data) != "kept" || rows.Len() != 1 {
			t.Errorf("%s: rows changed: %q", raw, rows.Data)
		}
	}
}

func TestDecoderRefuses(t *testing.T) {
	t.Parallel()
	p := shipped(t)
	for _, c := range []struct{ source, body, want string }{
		{"binance", `<html>blocked</html>`, "not JSON at byte 0"},
		{"binance", ``, "it is empty"},
		{"binance", `[{"symbol":"BTC`, "cut short"},
		{"binance", `{"code":-1121,"msg":"Invalid symbol."}`, "the source says: -1121: Invalid symbol."},
		{"binance", `"x"`, "a text at body"},
		{"kraken", `{"error":["EQuery:Unknown asset pair"]}`, "the source says: EQuery:Unknown asset pair"},
		{"kraken", `{"error":[],"result":[]}`, "a list at body.result"},
		{"kraken", `{"error":[]}`, "nothing at body.result"},
		{"coinbase", `{"type":"error","message":"a","reason":"b"}`, "the source says: a: b"},
		{"okx", `{"event":"error","code":"60012","msg":"bad"}`, "the source says: 60012: bad"},
		{"fear_greed", `<html></html>`, "the page has changed"},
	} {
		for _, src := range p.Sources {
			if src.Name != c.source {
				continue
			}
			dec, err := decode.NewDecoder(src)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := dec.Records([]byte(c.body)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: got %v, want %s", c.source, c.body, err, c.want)
			}
		}
	}
}

func binanceRecord(t testing.TB) (*row.Program, row.Record, *spec.Source) {
	t.Helper()
	src := shipped(t).Sources[0]
	prog, err := row.Compile(src)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := decode.NewDecoder(src)
	if err != nil {
		t.Fatal(err)
	}
	pieces, err := dec.Records(fixture(t, "binance")[0])
	if err != nil {
		t.Fatal(err)
	}
	return prog, row.Record{Key: pieces[0].Key, Value: pieces[0].Value, Slot: noon}, src
}

func TestAppendDoesNotAllocate(t *testing.T) {
	// Alone: it counts what the process allocates.
	prog, rec, _ := binanceRecord(t)
	var rows row.Rows
	n := testing.AllocsPerRun(1000, func() {
		rows.Reset()
		if err := prog.Append(&rows, rec, 0); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func BenchmarkMapping(b *testing.B) {
	prog, rec, src := binanceRecord(b)
	b.Run("compiled", func(b *testing.B) {
		var rows row.Rows
		b.SetBytes(int64(len(rec.Value)))
		b.ReportAllocs()
		for b.Loop() {
			if rows.Len() == 5000 {
				rows.Reset()
			}
			if err := prog.Append(&rows, rec, 0); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
	b.Run("hcl", func(b *testing.B) {
		b.SetBytes(int64(len(rec.Value)))
		for b.Loop() {
			if _, _, ok := reference(src, rec); !ok {
				b.Fatal("refused")
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
	b.Run("encoding-json", func(b *testing.B) { // parsing alone, into a map
		b.SetBytes(int64(len(rec.Value)))
		for b.Loop() {
			var m map[string]any
			if err := json.Unmarshal(rec.Value, &m); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
}
