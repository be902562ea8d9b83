package local

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ulikunitz/xz"
)

// Published binaries of PostgreSQL 18, downloaded once where none is installed. The hash is pinned here, so that a mirror
// cannot slip in another program.
const (
	publishedVersion = "18.3.0"
	DefaultMirror    = "https://repo1.maven.org/maven2"
)

var published = map[string]string{
	"linux-amd64": "1974c3a59c3ae010e9818e81637e425aad94eaac26e4ef533b42e081fe7ca345",
}

// binaries is one installation: a folder with initdb and postgres.
type binaries struct {
	dir       string
	major     int
	timescale bool
}

var versionText = regexp.MustCompile(`PostgreSQL\)? (\d+)`)

func inspect(dir string) (binaries, bool) {
	b := binaries{dir: dir}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	m := versionText.FindSubmatch(out)
	if err != nil || m == nil {
		return b, false
	}
	b.major, _ = strconv.Atoi(string(m[1]))
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil || b.major < 14 {
		return b, false
	}
	share, err := exec.Command(filepath.Join(dir, "pg_config"), "--sharedir").Output()
	if err == nil {
		_, err = os.Stat(filepath.Join(strings.TrimSpace(string(share)), "extension", "timescaledb.control"))
		b.timescale = err == nil
	}
	return b, true
}

// installed lists the PostgreSQL installations of this machine: with TimescaleDB first, then the newest.
func installed() []binaries {
	var dirs []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin"} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(p))
		}
	}
	var out []binaries
	for _, d := range dirs {
		if b, ok := inspect(d); ok && !slices.ContainsFunc(out, func(o binaries) bool { return o.dir == b.dir }) {
			out = append(out, b)
		}
	}
	slices.SortStableFunc(out, func(a, b binaries) int {
		if a.timescale != b.timescale {
			if a.timescale {
				return -1
			}
			return 1
		}
		return b.major - a.major
	})
	return out
}

// choose finds the binaries for a data directory made by major (0: a new one).
func choose(ctx context.Context, opt PostgresOptions, major int) (binaries, error) {
	if opt.Binaries != "" {
		b, ok := inspect(opt.Binaries)
		if !ok {
			return b, fmt.Errorf("%s holds no PostgreSQL 14 or newer (initdb and postgres)", opt.Binaries)
		}
		if major != 0 && b.major != major {
			return b, majorError(major, b.major)
		}
		return b, nil
	}
	for _, b := range installed() {
		if major == 0 || b.major == major {
			return b, nil
		}
	}
	want, _, _ := strings.Cut(publishedVersion, ".")
	if strconv.Itoa(major) != want && major != 0 {
		n, _ := strconv.Atoi(want)
		return binaries{}, majorError(major, n)
	}
	dir, err := download(ctx, opt)
	if err != nil {
		return binaries{}, fmt.Errorf("PostgreSQL is not installed here, and version %s could not be fetched: %w. Install postgresql 14 or newer, or run `cryptoviz run` against a database of yours", publishedVersion, err)
	}
	b, ok := inspect(dir)
	if !ok {
		return b, fmt.Errorf("the PostgreSQL in %s does not run on this machine: install postgresql 14 or newer", dir)
	}
	return b, nil
}

func majorError(have, found int) error {
	return fmt.Errorf("the data directory was made by PostgreSQL %d, and only %d is here: install %d, or move the directory away. Nothing was changed", have, found, have)
}

func platform() string {
	return runtime.GOOS + "-" + runtime.GOARCH
}

// download fetches the published binaries into the user's cache, once, and returns their bin folder.
func download(ctx context.Context, opt PostgresOptions) (string, error) {
	sum, known := published[platform()]
	if !known {
		return "", fmt.Errorf("there are no pinned binaries for %s", platform())
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
	target := filepath.Join(cache, "postgresql-"+publishedVersion)
	if _, err := os.Stat(filepath.Join(target, "bin", "postgres")); err == nil {
		return filepath.Join(target, "bin"), nil
	}
	if opt.Progress != nil {
		opt.Progress("fetching PostgreSQL " + publishedVersion + " (15 MB, once)")
	}
	mirror := strings.TrimSuffix(opt.Mirror, "/")
	if mirror == "" {
		mirror = DefaultMirror
	}
	name := "embedded-postgres-binaries-" + platform()
	jar, err := get(ctx, fmt.Sprintf("%s/io/zonky/test/postgres/%s/%s/%s-%s.jar", mirror, name, publishedVersion, name, publishedVersion))
	if err != nil {
		return "", err
	}
	if got := sha256.Sum256(jar); hex.EncodeToString(got[:]) != sum {
		return "", errors.New("the downloaded file is not the published one (its SHA-256 differs)")
	}
	return filepath.Join(target, "bin"), unpack(jar, target)
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %s", resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 200<<20))
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
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), ".unpack-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // programs for everybody
		return err
	}
	if err := untar(x, tmp); err != nil {
		return fmt.Errorf("open the archive: %w", err)
	}
	if err := os.Rename(tmp, target); err != nil {
		if _, there := os.Stat(filepath.Join(target, "bin", "postgres")); there == nil {
			return nil // another start was faster
		}
		return err
	}
	return nil
}

func untar(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the name %q leaves the folder", h.Name)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			if err = root.MkdirAll(filepath.Dir(name), 0o755); err == nil {
				err = root.Symlink(h.Linkname, name)
			}
		case tar.TypeReg:
			if err = root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			var f *os.File
			if f, err = root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.FileMode(h.Mode)&0o755); err != nil { //nolint:gosec // masked
				return err
			}
			_, err = io.Copy(f, io.LimitReader(t, 200<<20))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return err
		}
	}
}
