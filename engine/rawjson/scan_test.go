package rawjson

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestScanFindsPaths(t *testing.T) {
	t.Parallel()
	var tree Tree
	a, b, c, d := tree.Add([]any{"a"}), tree.Add([]any{"b", "c"}), tree.Add([]any{"l", 1}), tree.Add([]any{"none"})
	out := make([]Value, tree.Len())
	src := `{"a": "x\u00e9\ud83d\ude00\n", "b":{"c":1}, "b":{"c":-1.50e+3}, "l":[1,[2],3]}`
	if err := tree.Scan([]byte(src), out); err != nil {
		t.Fatal(err)
	}
	if got := string(out[a].Text(nil)); got != "xé😀\n" {
		t.Errorf("a = %q", got)
	}
	if got := string(out[b].Raw); got != "-1.50e+3" {
		t.Errorf("b.c = %s: the last of two equal names wins", got)
	}
	if got := string(out[c].Raw); got != "[2]" || out[c].Kind != Array {
		t.Errorf("l[1] = %s", got)
	}
	if out[d].Kind != Missing {
		t.Errorf("none = %v", out[d])
	}
	if err := tree.Scan([]byte(`{"b":{"c":1},"b":{}}`), out); err != nil || out[b].Kind != Missing {
		t.Errorf("a second b without c must hide the first one's: %v %v", out[b], err)
	}
}

func TestScanRefuses(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		``: "empty", `  `: "empty", `{"a":1`: "cut short", `{"a"`: "cut short", `[1,]`: "cannot begin", `{"a":1}x`: "follows", `01`: "follows",
		`{"a":.5}`: "cannot begin", `nul`: "want null", "\"a\x01\"": "control", `"\x"`: "unknown escape", `"\u12"`: "cut short", `1.`: "cut short", `<html>`: "cannot begin",
		strings.Repeat("[", 65) + strings.Repeat("]", 65): "deeper",
	} {
		var tree Tree
		err := tree.Scan([]byte(src), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %q", src, err, want)
		}
	}
}

func TestEach(t *testing.T) {
	t.Parallel()
	var tree Tree
	root := tree.Add(nil)
	out := make([]Value, 1)
	for src, want := range map[string]string{
		`[ 1 , "a" ,{"b":[]} ]`:        `=1;="a";={"b":[]};`,
		`{"x": {"y":1}, "\u007a":[2]}`: `x={"y":1};z=[2];`,
		`[]`:                           ``, `{ }`: ``,
	} {
		if err := tree.Scan([]byte(src), out); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		_ = out[root].Each(func(name []byte, v Value) error {
			got.Write(name)
			got.WriteString("=" + string(v.Raw) + ";")
			return nil
		})
		if got.String() != want {
			t.Errorf("%s: got %s", src, got.String())
		}
	}
}

// FuzzScan compares with encoding/json: the same documents are good, and the same value is found.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`{"a":"b"}`, `[1,2.5e3,true,null]`, `{"a":{"a":[0]},"a":"\u0041\ud800"}`, "{\"a\":\"\xff\"}", `"`, `{"a":`, `-`, `1e`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var tree Tree
		a := tree.Add([]any{"a"})
		out := make([]Value, 1)
		err := tree.Scan(src, out)
		if err != nil && strings.Contains(err.Error(), "deeper") {
			return
		}
		if good := json.Valid(src); good != (err == nil) {
			t.Fatalf("%q: encoding/json says %v, we say %v", src, good, err)
		}
		var ref map[string]any
		if err != nil || json.Unmarshal(src, &ref) != nil {
			return
		}
		want, found := ref["a"]
		if found != (out[a].Kind != Missing) {
			t.Fatalf("%q: a found: %v, we: %v", src, found, out[a].Kind)
		}
		if s, ok := want.(string); ok && !bytes.Equal(out[a].Text(nil), []byte(s)) {
			t.Fatalf("%q: a = %q, we: %q", src, s, out[a].Text(nil))
		}
	})
}
