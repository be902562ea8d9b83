package embedded

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ulikunitz/xz"
)

// Published binaries of PostgreSQL, downloaded once where none is installed.
const (
	publishedVersion = "18.3.0"
	publishedMajor   = 18
	DefaultMirror    = "https://repo1.maven.org/maven2"
)

// build is one published archive. Its hash is pinned here, so that a mirror cannot slip in another program.
type build struct {
	name   string // the publisher's name of the platform
	mb     int
	sha256 string
}

// published has the builds by platform, in Go's words; musl is Alpine and the like.
var published = map[string]build{
	"linux-amd64":      {"linux-amd64", 15, "1974c3a59c3ae010e9818e81637e425aad94eaac26e4ef533b42e081fe7ca345"},
	"linux-amd64-musl": {"linux-amd64-alpine", 15, "510fd314da39f1eeccef774a92428474168fedf55403342548e2adeaed66b483"},
	"linux-arm64":      {"linux-arm64v8", 14, "1fb555a6602c13a113ab1f0cc9224d599948e85e51ac5f001393605505eaf78e"},
	"darwin-amd64":     {"darwin-amd64", 33, "cb68c57232945f5e74db946e6077d70cec56bfed35959b21acc750cc80ca0977"},
	"darwin-arm64":     {"darwin-arm64v8", 33, "a18ec9ec6a905e04f5a08a8f7870bddadd635feb54dee332a3daf80fada3cb1a"},
}

// idleTimeout is how long a download may stand still.
const idleTimeout = 30 * time.Second

func platform() string {
	name := runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOOS == "linux" && musl("/bin/sh") {
		name += "-musl"
	}
	return name
}

// musl tells whether a program of the system uses musl instead of glibc. That the musl loader is there says nothing:
// Debian has it as a package, too.
func musl(program string) bool {
	f, err := elf.Open(program)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			loader, err := io.ReadAll(io.LimitReader(p.Open(), 256))
			return err == nil && strings.HasPrefix(path.Base(string(loader)), "ld-musl-")
		}
	}
	return false
}

// download fetches the published binaries into the user's cache, once, and returns their bin folder.
func download(ctx context.Context, opt PostgresOptions) (string, error) {
	b, known := published[platform()]
	if !known {
		return "", fmt.Errorf("no build of it is published for %s", platform())
	}
	cache := opt.Cache
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			base = os.TempDir()
		}
		if os.Geteuid() == 0 { // the server's account must be able to pass through
			base = "/var/cache"
		}
		cache = filepath.Join(base, "cryptoviz")
	}
	mirror := strings.TrimSuffix(opt.Mirror, "/")
	if mirror == "" {
		mirror = DefaultMirror
	}
	progress := opt.Progress
	if progress == nil {
		progress = func(string) {}
	}
	return b.fetch(ctx, cache, mirror, progress)
}

// fetch returns the bin folder of the build in a cache, and puts it there if need be.
func (b build) fetch(ctx context.Context, cache, mirror string, progress func(string)) (string, error) {
	target := filepath.Join(cache, "postgresql-"+publishedVersion+"-"+b.name)
	if whole(target) {
		return filepath.Join(target, "bin"), nil
	}
	progress(fmt.Sprintf("fetching PostgreSQL %s (%d MB, once)", publishedVersion, b.mb))
	name := "embedded-postgres-binaries-" + b.name
	jar, err := get(ctx, fmt.Sprintf("%s/io/zonky/test/postgres/%s/%s/%s-%s.jar", mirror, name, publishedVersion, name,
		publishedVersion), idleTimeout)
	if err != nil {
		return "", err
	}
	if got := sha256.Sum256(jar); hex.EncodeToString(got[:]) != b.sha256 {
		return "", fmt.Errorf("what came from %s is not the published file: its SHA-256 differs", shown(mirror))
	}
	return filepath.Join(target, "bin"), unpack(jar, target)
}

// get reads a file. A slow line may take its time; one that stands still may not.
func get(ctx context.Context, address string, patience time.Duration) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing came for %s", patience)) })
	defer idle.Stop()
	body, err := read(ctx, address, func() { idle.Reset(patience) })
	if err == nil {
		return body, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return nil, fmt.Errorf("read %s: %w", shown(address), err)
}

func read(ctx context.Context, address string, came func()) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("it is no URL")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok { // it names the URL again
			err = e.Err
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %s", resp.Status)
	}
	return io.ReadAll(io.TeeReader(io.LimitReader(resp.Body, 100<<20), activity(came)))
}

// activity is a writer that tells only that something was written.
type activity func()

func (p activity) Write(b []byte) (int, error) {
	p()
	return len(b), nil
}

// shown is where an address leads. Its user, path and query may be what a mirror lets in by; that of the usual one is
// public.
func shown(address string) string {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@"):
		return "the mirror"
	case strings.HasPrefix(address, DefaultMirror):
		return address
	}
	return u.Scheme + "://" + u.Host
}

func whole(target string) bool {
	_, err := os.Stat(filepath.Join(target, "bin", "postgres"))
	return err == nil
}

// unpack opens the jar (zip -> .txz -> tar) beside the target and renames it there: a target is whole or absent.
func unpack(jar []byte, target string) error {
	z, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return fmt.Errorf("open the archive: %w", err)
	}
	i := slices.IndexFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, ".txz") })
	if i < 0 {
		return errors.New("open the archive: it holds no .txz")
	}
	f, err := z.File[i].Open()
	if err != nil {
		return fmt.Errorf("open the archive: %w", err)
	}
	defer func() { _ = f.Close() }()
	x, err := xz.NewReader(f)
	if err != nil {
		return fmt.Errorf("open the archive: %w", err)
	}
	if err := openFolder(filepath.Dir(target)); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), ".unpack-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := untar(x, tmp); err != nil {
		return fmt.Errorf("open the archive: %w", err)
	}
	if err := os.Rename(tmp, target); err != nil && !whole(target) { // else another start was faster
		return fmt.Errorf("%w: if %s is there, it is damaged: remove it", err, target)
	}
	return nil
}

// untar unpacks into a folder that every account may read, whatever the umask.
func untar(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = extract(root, h, t)
		}
		if err != nil {
			return err
		}
	}
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = root.Chmod(name, 0o755)
		}
		return err
	})
}

// extract makes one file, link or folder. Nothing leaves the root.
func extract(root *os.Root, h *tar.Header, content io.Reader) error {
	name := filepath.Clean(h.Name)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("the name %q leaves the folder", h.Name)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		if filepath.IsAbs(h.Linkname) || !filepath.IsLocal(filepath.Join(filepath.Dir(name), h.Linkname)) {
			return fmt.Errorf("the link %q leaves the folder", h.Name)
		}
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Chmod(os.FileMode(h.Mode)&0o755), f.Close()) //nolint:gosec // masked
	}
	return fmt.Errorf("%q is of the unknown kind %q", h.Name, h.Typeflag)
}
