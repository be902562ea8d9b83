package load

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/limits"
)

// onDisk writes a bundle into a folder.
func onDisk(t *testing.T, files fstest.MapFS) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, files); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What a path names may be anything: each is answered at once, and nothing outside is read.
func TestFilesThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"a folder":    {func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "is a folder, not a file"},
		"a pipe":      {func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }, "is not an ordinary file"},
		"itself":      {func(t *testing.T, path string) { must(t, os.Symlink(filepath.Base(path), path)) }, "too many levels of symbolic links"},
		"a device":    {func(t *testing.T, path string) { must(t, os.Symlink("/dev/zero", path)) }, "is not an ordinary file"},
		"a link away": {func(t *testing.T, path string) { must(t, os.Symlink("/does/not/exist", path)) }, "there is no file"},
		"too large":   {func(t *testing.T, path string) { must(t, os.WriteFile(path, make([]byte, limits.MaxFile+1), 0o600)) }, "1 MiB"},
		"binary":      {func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("a\x00b"), 0o600)) }, "text"},
		"not UTF-8":   {func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("caf\xe9"), 0o600)) }, "UTF-8"},
		"nothing":     {func(*testing.T, string) {}, "there is no file"},
		"unreadable": {func(t *testing.T, path string) {
			if os.Geteuid() == 0 {
				t.Skip("root reads everything")
			}
			must(t, os.WriteFile(path, []byte("x"), 0))
		}, "check its permissions"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, place := range []string{"sql/hourly.sql", "sources/feed.hcl", "pipeline.hcl"} {
				dir := onDisk(t, base(t))
				path := filepath.Join(dir, filepath.FromSlash(place))
				must(t, os.Remove(path))
				c.make(t, path)
				_, d := Load(os.DirFS(dir), "pipeline.hcl", Options{})
				text := strings.Join(strings.Fields(report(d)), " ")
				if !strings.Contains(strings.ToLower(text), strings.ToLower(c.want)) || d.Errors() != 1 {
					t.Errorf("%s: %s\nwant %q", place, report(d), c.want)
				}
				if strings.Contains(text, dir) {
					t.Errorf("the text names the folder %s: %s", dir, text)
				}
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPathsThatLeaveTheFolder(t *testing.T) {
	for _, path := range []string{"../x", "/etc/passwd", "sql/../../x", "..", "/", "", "sql/\\u0000", "./../x", "C:\\\\x", "~/x", "//x", "sql//hourly.sql/x", "sql/hourly.sql/.."} {
		_, d := Load(swap(t, "pipeline.hcl", `file("sql/hourly.sql")`, `file("`+path+`")`), "pipeline.hcl", Options{})
		if d.Errors() != 1 {
			t.Errorf("%s: %s", path, report(d))
		}
	}
	for _, path := range []string{"sql/hourly.sql", "./sql/hourly.sql", "sql/../sql/hourly.sql", "sql//hourly.sql"} {
		if _, d := Load(swap(t, "pipeline.hcl", `file("sql/hourly.sql")`, `file("`+path+`")`), "pipeline.hcl", Options{}); d.HasErrors() {
			t.Errorf("%s: %s", path, report(d))
		}
	}
}

// A definition that many sources name is read once.
func TestSharedDefinitionIsReadOnce(t *testing.T) {
	files := base(t)
	files["pipeline.hcl"].Data = []byte(strings.ReplaceAll(string(files["pipeline.hcl"].Data), "sources/feed.hcl", "./sources/spot.hcl"))
	reads := &countingFS{FS: files, opened: map[string]int{}}
	if _, d := Load(reads, "pipeline.hcl", Options{}); d.HasErrors() || reads.opened["sources/spot.hcl"] != 1 {
		t.Errorf("read %v times\n%s", reads.opened, report(d))
	}
	files["sources/spot.hcl"].Data = append(files["sources/spot.hcl"].Data, "nonsense {}\n"...)
	if _, d := Load(files, "pipeline.hcl", Options{}); d.Errors() != 1 {
		t.Errorf("one mistake is reported %d times", d.Errors())
	}
}

type countingFS struct {
	fs.FS
	opened map[string]int
}

func (c *countingFS) Open(name string) (fs.File, error) {
	c.opened[name]++
	return c.FS.Open(name)
}

func (c *countingFS) Stat(name string) (fs.FileInfo, error) { return fs.Stat(c.FS, name) }
