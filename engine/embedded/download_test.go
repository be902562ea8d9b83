package embedded

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
)

// entry is a file of an archive, or a link.
type entry struct{ name, text, link string }

var good = []entry{{name: "bin/postgres", text: "program"}, {name: "lib/libpq.so", link: "libpq.so.5"}, {name: "lib/libpq.so.5", text: "library"}, {name: "share/a/b", text: "data"}}

func txz(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	x, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(x)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o4755, Size: int64(len(e.text)), Typeflag: tar.TypeReg}
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case strings.HasSuffix(e.name, "fifo"):
			h.Typeflag = tar.TypeFifo
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func jar(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, n := range []string{"META-INF/MANIFEST.MF", name} {
		f, err := z.Create(n)
		if err == nil {
			_, err = f.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestUnpack(t *testing.T) {
	packed := txz(t, good...)
	many := make([]byte, 1<<20) // so that a cut falls into it
	for i := range many {
		many[i] = byte(i * i >> 7)
	}
	for name, c := range map[string]struct {
		jar  []byte
		want string
	}{
		"good":                  {jar(t, "postgres-linux-x86_64.txz", packed), ""},
		"name leaves":           {jar(t, "a.txz", txz(t, entry{name: "../outside", text: "x"})), `the name "../outside" leaves the folder`},
		"name leaves later":     {jar(t, "a.txz", txz(t, entry{name: "bin/../../outside", text: "x"})), "leaves the folder"},
		"absolute name":         {jar(t, "a.txz", txz(t, entry{name: "/outside", text: "x"})), "leaves the folder"},
		"link leaves":           {jar(t, "a.txz", txz(t, entry{name: "lib/out", link: "../../outside"})), `the link "lib/out" leaves the folder`},
		"absolute link":         {jar(t, "a.txz", txz(t, entry{name: "out", link: "/outside"})), "leaves the folder"},
		"file through a link":   {jar(t, "a.txz", txz(t, entry{name: "a", link: "."}, entry{name: "a", text: "x"})), "file exists"},
		"a name twice":          {jar(t, "a.txz", txz(t, good[0], good[0])), "file exists"},
		"a kind of its own":     {jar(t, "a.txz", txz(t, entry{name: "fifo"})), "unknown kind"},
		"no txz":                {jar(t, "postgres.tar.gz", packed), "it holds no .txz"},
		"txz of something else": {jar(t, "a.txz", []byte("<html>")), "open the archive"},
		"txz cut short":         {jar(t, "a.txz", packed[:len(packed)/2]), "open the archive"},
		"tar cut short":         {jar(t, "a.txz", txz(t, entry{name: "bin/postgres", text: string(many)})[:4000]), "open the archive"},
		"no zip":                {[]byte("<html>"), "open the archive"},
		"nothing":               {nil, "open the archive"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "cache", "new", "target")
			err := unpack(c.jar, target)
			if got := fmt.Sprint(err); !strings.Contains(got, c.want) || (err == nil) != (c.want == "") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := os.Lstat(filepath.Join(dir, "cache", "new", "outside")); err == nil {
				t.Error("a file lies outside")
			}
			left, _ := filepath.Glob(filepath.Join(dir, "cache", "new", ".*"))
			if whole(target) != (c.want == "") || len(left) > 0 {
				t.Errorf("target is whole: %v; left over: %v", whole(target), left)
			}
		})
	}
}

func TestUnpackedIsReadableByEveryAccount(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	umask(t, 0o077)
	if err := unpack(jar(t, "a.txz", txz(t, good...)), target); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(target, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o755 || info.Mode()&fs.ModeSetuid != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mirror serves one answer for everything and makes a build whose hash is that of content.
func mirror(t *testing.T, content []byte, answer http.HandlerFunc) (build, string) {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	sum := sha256.Sum256(content)
	return build{name: "linux-test", mb: 1, sha256: hex.EncodeToString(sum[:])}, server.URL
}

func TestFetch(t *testing.T) {
	content := jar(t, "a.txz", txz(t, good...))
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"good": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/m2/io/zonky/test/postgres/embedded-postgres-binaries-linux-test/18.3.0/embedded-postgres-binaries-linux-test-18.3.0.jar" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			_, _ = w.Write(content)
		}, ""},
		"404":     {http.NotFound, "the server answers 404 Not Found"},
		"500":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "the server answers 500"},
		"a login": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in")) }, "is not the published file: its SHA-256 differs"},
		"other bytes": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append(slices.Clip(content), 0))
		}, "its SHA-256 differs"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content[:len(content)/2])
		}, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			b, url := mirror(t, content, c.answer)
			cache := t.TempDir()
			var told []string
			bin, err := b.fetch(t.Context(), cache, url+"/m2", func(s string) { told = append(told, s) })
			if (err == nil) != (c.want == "") || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if err != nil {
				if !strings.Contains(err.Error(), url) {
					t.Errorf("the error does not name the mirror: %v", err)
				}
				if left, _ := os.ReadDir(cache); len(left) > 0 {
					t.Errorf("left over: %v", left)
				}
				return
			}
			if text, err := os.ReadFile(filepath.Join(bin, "postgres")); err != nil || string(text) != "program" {
				t.Errorf("unpacked %q, %v", text, err)
			}
			if len(told) != 1 || told[0] != "fetching PostgreSQL 18.3.0 (1 MB, once)" {
				t.Errorf("told %q", told)
			}
			if again, err := b.fetch(t.Context(), cache, "http://127.0.0.1:1", func(string) { t.Error("fetched twice") }); err != nil || again != bin {
				t.Errorf("from the cache: %q, %v", again, err)
			}
		})
	}
}

func TestFetchTwiceAtOnce(t *testing.T) {
	content := jar(t, "a.txz", txz(t, good...))
	var both sync.WaitGroup
	both.Add(2)
	b, url := mirror(t, content, func(w http.ResponseWriter, _ *http.Request) {
		both.Done()
		both.Wait() // both have looked into the empty cache
		_, _ = w.Write(content)
	})
	cache := t.TempDir()
	got := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := b.fetch(context.Background(), cache, url, func(string) {})
			got <- err
		}()
	}
	if a, b := <-got, <-got; a != nil || b != nil {
		t.Fatal(a, b)
	}
	if entries, _ := os.ReadDir(cache); len(entries) != 1 {
		t.Errorf("the cache holds %v", entries)
	}
}

func TestUnpackOverADamagedTarget(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	if err := os.MkdirAll(filepath.Join(target, "share"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := unpack(jar(t, "a.txz", txz(t, good...)), target)
	if err == nil || !strings.Contains(err.Error(), "it is damaged: remove it") {
		t.Fatal(err)
	}
}

func TestGetGivesUpWhenNothingComes(t *testing.T) {
	release := make(chan struct{})
	_, slow := mirror(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		for range 5 { // slower in all than the patience, and each part is faster
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(500 * time.Millisecond) //nolint:forbidigo // a slow line
		}
	})
	if body, err := get(t.Context(), slow, 2*time.Second); err != nil || len(body) != 5 {
		t.Errorf("a slow line: %q, %v", body, err)
	}
	_, silent := mirror(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("x"))
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	defer close(release)
	if _, err := get(t.Context(), silent, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "nothing came for 50ms") {
		t.Errorf("a line that stands still: %v", err)
	}
}

func TestGetShowsNoPassword(t *testing.T) {
	for _, address := range []string{"http://me:geheim@127.0.0.1:1/x", "http://me:geheim@\x7f/x", "me:geheim@host/x", "http://me:geheim@127.0.0.1:99999999/x"} {
		if _, err := get(t.Context(), address, time.Second); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestPlatforms(t *testing.T) {
	for name, want := range map[string]string{
		"linux-amd64": "linux-amd64", "linux-amd64-musl": "linux-amd64-alpine", "linux-arm64": "linux-arm64v8",
		"darwin-amd64": "darwin-amd64", "darwin-arm64": "darwin-arm64v8",
		"linux-arm64-musl": "", "windows-amd64": "", "linux-riscv64": "",
	} {
		if b := published[name]; b.name != want || (want != "") != (len(b.sha256) == 64) {
			t.Errorf("%s: %+v", name, b)
		}
	}
	if musl(os.Args[0]) || musl("/nothing/here") {
		t.Error("a static program, or none, is taken for musl")
	}
}

// TestShownAddress: what lets us in to a mirror is in no message.
func TestShownAddress(t *testing.T) {
	for address, want := range map[string]string{
		DefaultMirror + "/io/x.jar":                        DefaultMirror + "/io/x.jar",
		"https://me:geheim@mirror.example/geheim/x.jar":    "https://mirror.example",
		"https://mirror.example:8443/x.jar?token=geheim#a": "https://mirror.example:8443",
		"https://me:12/geheim@mirror.example/x.jar":        "the mirror",
		"https://me:12?geheim@mirror.example/x.jar":        "the mirror",
		"geheim": "the mirror",
	} {
		if got := shown(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
