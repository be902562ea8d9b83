package load_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/simulate"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// fences are the blocks of sources/README.md in a language; "" for those without one, which may be indented.
func fences(t *testing.T, text, language string) (out []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```$").FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			out = append(out, m[2])
		}
	}
	if len(out) == 0 {
		t.Fatalf("the text has no block %q", language)
	}
	return out
}

// desk is the example of the reference, with its sample.
func desk(t *testing.T) (files fstest.MapFS, text string) {
	t.Helper()
	src, err := os.ReadFile("../../sources/README.md")
	if err != nil {
		t.Fatal(err)
	}
	text = string(src)
	files = fstest.MapFS{"sources/desk.reply.json": &fstest.MapFile{Data: []byte(fences(t, text, "json")[0])}}
	for _, e := range fences(t, text, "hcl") {
		if name, _, _ := strings.Cut(strings.TrimPrefix(e, "# "), "\n"); strings.HasSuffix(name, ".hcl") {
			files[name] = &fstest.MapFile{Data: []byte(e)}
		}
	}
	return files, text
}

func mustLoad(t *testing.T, files fstest.MapFS) (*spec.Pipeline, *decode.Decoder) {
	t.Helper()
	p, d := load.Load(files, "pipeline.hcl", load.Options{})
	var said bytes.Buffer
	if err := d.Write(&said, false, 80); err != nil || d.HasErrors() {
		t.Fatalf("%v %s", err, &said)
	}
	decoder, err := decode.NewDecoder(p.Sources[0])
	if err != nil {
		t.Fatal(err)
	}
	return p, decoder
}

// rows are what comes out of a reply, each as the columns of the example in one line.
func rows(t *testing.T, files fstest.MapFS, reply string) (out []string) {
	t.Helper()
	p, decoder := mustLoad(t, files)
	pieces, err := decoder.Records([]byte(reply))
	if err != nil {
		t.Fatal(err)
	}
	program, err := row.Compile(p.Sources[0])
	if err != nil {
		t.Fatal(err)
	}
	var all row.Rows
	for i, piece := range pieces {
		if err := program.Append(&all, row.Record{Key: piece.Key, Value: piece.Value, Slot: time.Unix(1790856000, 0)}, int32(i)); err != nil {
			t.Errorf("%s: %v", piece.Value, err)
		}
	}
	for i := range all.Len() {
		var line []string
		data, at := all.Slice(i, i+1), 2
		for _, column := range program.Columns() {
			n := int(int32(binary.BigEndian.Uint32(data[at:])))
			at += 4
			if n < 0 {
				continue
			}
			switch field := data[at : at+n]; p.Sources[0].Table.Column(column).Type {
			case spec.Double:
				line = append(line, fmt.Sprint(math.Float64frombits(binary.BigEndian.Uint64(field))))
			case spec.Timestamptz:
				line = append(line, time.UnixMicro(all.Times[i]).UTC().Format("2006-01-02 15:04:05+00"))
			default:
				line = append(line, string(field))
			}
			at += n
		}
		out = append(out, strings.Join(line, " "))
	}
	return out
}

// The example of a new source gives the rows that are shown, and its sample is played.
func TestReferenceDesk(t *testing.T) {
	files, text := desk(t)
	var want []string
	for line := range strings.Lines(fences(t, text, "")[0]) {
		want = append(want, strings.Join(strings.Fields(line), " "))
	}
	if got := append([]string{"time source base quote price volume"}, rows(t, files, string(files["sources/desk.reply.json"].Data))...); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, the text says %q", got, want)
	}
	p, _ := mustLoad(t, files)
	var said bytes.Buffer
	server, err := simulate.New(p, simulate.Options{Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil || !server.Plays("desk") || said.Len() > 0 {
		t.Errorf("it is not played: %v %s", err, &said)
	}
}

var replyForm = regexp.MustCompile("^\\| `([^`]*)` \\| `([^`]*)` \\| (.*) \\|$")

// What comes out of a reply is computed.
func TestReferenceReplies(t *testing.T) {
	files, text := desk(t)
	_, part, _ := strings.Cut(text, "\n| reply | with | key and record |\n")
	part, _, _ = strings.Cut(part, "\n\n")
	before, rest, _ := strings.Cut(string(files["sources/desk.hcl"].Data), "decode \"json\" {\n")
	_, after, _ := strings.Cut(rest, "\n}\n")
	tried := 0
	for line := range strings.Lines(part) {
		m := replyForm.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		tried++
		files["sources/desk.hcl"] = &fstest.MapFile{Data: []byte(before + "decode \"json\" {\n" + strings.ReplaceAll(m[2], ", keyed", "\nkeyed") + "\n}\n" + after)}
		_, decoder := mustLoad(t, files)
		pieces, err := decoder.Records([]byte(m[1]))
		got := make([]string, len(pieces))
		for i, p := range pieces {
			got[i] = fmt.Sprintf("`%s`: `%s`", p.Key, p.Value)
		}
		if out := strings.Join(got, ", "); err != nil || out != m[3] && (len(got) > 0 || m[3] != "none") {
			t.Errorf("%s with %s: %v %s, the text says %s", m[1], m[2], err, out, m[3])
		}
	}
	if tried != strings.Count(part, "\n") {
		t.Errorf("%d rows tried of\n%s", tried, part)
	}
}

// The page gives what is said of it.
func TestReferencePage(t *testing.T) {
	files, text := desk(t)
	_, part, _ := strings.Cut(text, "\n## `decode \"html\"`\n")
	part, _, _ = strings.Cut(part, "\n## ")
	var first []string
	for _, m := range regexp.MustCompile("`r\\.[a-z]+ == \"([^\"]*)\"`").FindAllStringSubmatch(part, -1) {
		first = append(first, m[1])
	}
	files["sources/desk.hcl"] = &fstest.MapFile{Data: []byte("param \"token\" {}\npoll { url = \"https://example.com\" }\n" + fences(t, part, "hcl")[0] +
		"row {\n time = slot\n source = source\n base = r.market\n quote = \"<${r.price}>\"\n price = r.price\n volume = r.volume\n}\n")}
	got := rows(t, files, fences(t, part, "html")[0])
	if len(got) != 2 || len(first) != 3 || first[2] != "" || !strings.HasPrefix(got[0], "2026-10-01 12:00:00+00 desk "+first[0]+" <"+first[1]+"> ") || strings.Count(got[0], " ") != 5 {
		t.Errorf("%q, the text says %q", got, first)
	}
}
