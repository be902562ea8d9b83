package load

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/diag"
)

var update = flag.Bool("update", false, "write the texts of testdata/mistakes anew")

// base is a small pipeline without a mistake.
func base(t testing.TB) fstest.MapFS {
	t.Helper()
	out, root := fstest.MapFS{}, os.DirFS("testdata/base")
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		src, err := fs.ReadFile(root, name)
		out[name] = &fstest.MapFile{Data: src}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func report(d *diag.Diagnostics) string {
	var buf bytes.Buffer
	_ = d.Write(&buf, false, 80)
	return buf.String()
}

// mistake is one entry of testdata/mistakes: changes to the base pipeline, and what cryptoviz says of them.
//
//	== retention without quotes      its name
//	@ sources/spot.hcl               the file that the next lines change; pipeline.hcl without it, vars.hcl is a --var-file
//	-   retention  = "7d"            this line, which is there once, …
//	+   retention  = 7d              … becomes these; without lines to take out they are added at the end
//	$ NAME=VALUE                     an environment variable
//	% NAME=VALUE                     a --var
//	? 0.0.9                          the version of the program
//	0 pipeline.hcl                   this file is empty
//	--
//	the text, at 80 columns
type mistake struct {
	name, head, want string
}

func readMistakes(t *testing.T, file string) []mistake {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []mistake
	for entry := range strings.SplitSeq("\n"+string(src), "\n== ") {
		name, rest, _ := strings.Cut(entry, "\n")
		head, want, found := strings.Cut("\n"+rest+"\n", "\n--\n")
		if strings.TrimSpace(name) == "" {
			continue
		}
		if !found {
			t.Fatalf("%s: %q has no line --", file, name)
		}
		out = append(out, mistake{name, strings.TrimPrefix(head, "\n") + "\n", strings.Trim(want, "\n") + "\n"})
	}
	return out
}

func (m mistake) load(t *testing.T) *diag.Diagnostics {
	t.Helper()
	files, env := base(t), map[string]string{}
	opt := Options{Vars: map[string]string{}, Version: "0.1.0", Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
	file, out, in := "pipeline.hcl", []string(nil), []string(nil)
	flush := func() {
		if len(out)+len(in) == 0 {
			return
		}
		if files[file] == nil {
			files[file] = &fstest.MapFile{}
		}
		text := string(files[file].Data)
		if old := strings.Join(out, "\n"); old == "" {
			text += strings.Join(in, "\n") + "\n"
		} else if strings.Count("\n"+text, "\n"+old+"\n") != 1 {
			t.Fatalf("%s: not once in %s:\n%s", m.name, file, old)
		} else {
			text = strings.Replace("\n"+text, "\n"+old+"\n", "\n"+strings.Join(in, "\n")+"\n", 1)[1:]
		}
		files[file].Data = []byte(text)
		out, in = nil, nil
	}
	for line := range strings.Lines(m.head) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		name, value, _ := strings.Cut(rest, "=")
		switch kind {
		case "-":
			if len(in) > 0 {
				flush()
			}
			out = append(out, rest)
		case "+":
			in = append(in, rest)
		case "@":
			flush()
			file = rest
		case "$":
			env[name] = value
		case "%":
			opt.Vars[name] = value
		case "?":
			opt.Version = rest
		case "0":
			files[rest] = &fstest.MapFile{}
		default:
			t.Fatalf("%s: a line begins with %q", m.name, kind)
		}
	}
	flush()
	if f := files["vars.hcl"]; f != nil {
		opt.VarFiles = []VarFile{{"vars.hcl", f.Data}}
		delete(files, "vars.hcl")
	}
	_, d := Load(files, "pipeline.hcl", opt)
	return d
}

func TestMistakes(t *testing.T) {
	if _, d := Load(base(t), "pipeline.hcl", Options{Version: "0.1.0"}); len(d.Diags) > 0 {
		t.Fatalf("the base has mistakes:\n%s", report(d))
	}
	files, _ := filepath.Glob("testdata/mistakes/*.txt")
	total := 0
	for _, file := range files {
		var out strings.Builder
		for _, m := range readMistakes(t, file) {
			total++
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+m.name, func(t *testing.T) {
				d := m.load(t)
				got := strings.Trim(report(d), "\n") + "\n"
				if got != m.want && !*update {
					t.Errorf("says\n%s\nwant\n%s", got, m.want)
				}
				if !d.HasErrors() {
					t.Error("loads without an error")
				}
				for line := range strings.Lines(got) {
					if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
						t.Errorf("a line has %d columns: %s", n, line)
					}
				}
				fmt.Fprintf(&out, "== %s\n%s--\n%s\n", m.name, m.head, got)
			})
		}
		if *update {
			if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if total < 60 {
		t.Errorf("only %d mistakes", total)
	}
}
