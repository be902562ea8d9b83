package embedded

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

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

// usual is where systems put PostgreSQL.
var usual = []string{
	"/usr/lib/postgresql/*/bin", "/usr/libexec/postgresql*", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin",
}

// installed lists the PostgreSQL installations of this machine, in folders and on PATH: with TimescaleDB first, then
// the newest.
func installed(folders []string) []binaries {
	var dirs []string
	for _, pattern := range folders {
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

// choose finds the binaries for a data directory made by major (0: a new one), that the account can run.
func choose(ctx context.Context, opt PostgresOptions, acct *account, major int) (binaries, error) {
	if opt.Binaries != "" {
		b, ok := inspect(opt.Binaries)
		switch {
		case !ok:
			return b, fmt.Errorf("%s holds no PostgreSQL 14 or newer (initdb and postgres)", opt.Binaries)
		case major != 0 && b.major != major:
			return b, fmt.Errorf("the data directory was made by PostgreSQL %d, and %s holds %d: name the programs of "+
				"%d, or move the directory away. Nothing was changed", major, opt.Binaries, b.major, major)
		case !acct.reaches(b.dir):
			return b, fmt.Errorf("PostgreSQL does not run as root, and other accounts cannot reach %s: open the "+
				"folders above it (chmod o+x), or use an ordinary account", b.dir)
		}
		return b, nil
	}
	folders := opt.folders
	if folders == nil {
		folders = usual
	}
	for _, b := range installed(folders) {
		if (major == 0 || b.major == major) && acct.reaches(b.dir) {
			return b, nil
		}
	}
	if major != 0 && major != publishedMajor {
		return binaries{}, fmt.Errorf("the data directory was made by PostgreSQL %d, which is not installed here: "+
			"install postgresql %d, name its programs with --postgres-bin DIR, or move the directory away. Nothing was changed", major, major)
	}
	dir, err := download(ctx, opt)
	if err != nil {
		return binaries{}, fmt.Errorf("PostgreSQL is not installed here, and version %s could not be fetched: %w. "+
			"Install postgresql 14 or newer, name its programs with --postgres-bin DIR or a mirror of Maven Central in CRYPTOVIZ_POSTGRES_MIRROR, or run `cryptoviz run` against a database of yours", publishedVersion, err)
	}
	b, ok := inspect(dir)
	if !ok {
		return b, fmt.Errorf("the PostgreSQL in %s does not run on this machine: install postgresql 14 or newer", dir)
	}
	return b, nil
}
