package embedded

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PostgresOptions says how the private server is started. The zero value works.
type PostgresOptions struct {
	Log      *slog.Logger
	Progress func(string)
	Binaries string            // bin folder of an installation to use
	Mirror   string            // of the Maven repository; default DefaultMirror
	Cache    string            // folder for downloaded binaries
	Settings map[string]string // more of postgresql.conf
	// start on the port of last time or not at all, with a *PortError: somebody is connected to it
	KeepPort bool
	folders  []string // patterns of bin folders to look for; default usual
}

// Postgres is a running private server.
type Postgres struct {
	url       string
	superuser string // as url, for that user
	pid       int
	adopted   bool // it is not our child
	exited    chan struct{}
	err       error // why our child ended; read it after exited
	log       string
	logged    int64 // bytes in the log before it started
}

// PortError means that the port which the server must have is another program's.
type PortError struct {
	Port int
	Err  error // nil: somebody listens there
}

// Error names the port.
func (e *PortError) Error() string {
	text := fmt.Sprintf("its port %d on 127.0.0.1 is taken by another program", e.Port)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns what the server said.
func (e *PortError) Unwrap() error { return e.Err }

// errLeft means that a server which was left running ended while we waited for it: its stop was under way.
var errLeft = errors.New("the earlier server stopped")

// StartPostgres starts, or adopts, the private server of a state directory and makes the database cryptoviz.
func StartPostgres(ctx context.Context, s *State, opt PostgresOptions) (*Postgres, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Progress == nil {
		opt.Progress = func(string) {}
	}
	p, err := backoff.Retry(ctx, func() (*Postgres, error) {
		p, err := startPostgres(ctx, s, opt)
		if err != nil && !passing(err) {
			return nil, backoff.Permanent(err)
		}
		return p, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(200*time.Millisecond)),
		backoff.WithMaxElapsedTime(20*time.Second))
	if err != nil {
		return nil, fmt.Errorf("start the private PostgreSQL: %w", err)
	}
	return p, nil
}

// passing tells whether another attempt may succeed: after a kill, the children of the server of before may hold its
// shared memory for a moment, and somebody may take a port between our look and the server's start.
func passing(err error) bool {
	return errors.Is(err, errLeft) || strings.Contains(err.Error(), "shared memory block") || noSocket(err)
}

// noSocket tells whether the server ended because it could not listen.
func noSocket(err error) bool {
	return strings.Contains(err.Error(), "could not create any TCP/IP sockets")
}

func startPostgres(ctx context.Context, s *State, opt PostgresOptions) (*Postgres, error) {
	dir, err := s.postgresDir()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	acct, err := chooseAccount(data)
	if err != nil {
		return nil, err
	}
	major, err := madeBy(data)
	if err != nil {
		return nil, err
	}
	bin, err := choose(ctx, opt, acct, major)
	if err != nil {
		return nil, err
	}
	if err := openFolder(dir); err != nil {
		return nil, err
	}
	if free, _, err := FreeSpace(dir); err == nil && free < 256<<20 {
		return nil, fmt.Errorf("the disk of %s is full (%d MiB free, 256 needed): free some space. The data was "+
			"not touched", dir, free>>20)
	}
	mended := major != 0 && s.Data.SuperuserPassword == ""
	if major == 0 || mended || s.Data.Password == "" || s.Data.ReaderPassword == "" {
		if err := s.Update(func(d *StateData) {
			d.PostgresDir = dir
			for _, p := range []*string{&d.SuperuserPassword, &d.Password, &d.ReaderPassword} {
				if *p == "" && (p != &d.SuperuserPassword || !mended) {
					*p = rand.Text()
				}
			}
		}); err != nil {
			return nil, err
		}
	}
	if major == 0 {
		opt.Progress("making a PostgreSQL " + strconv.Itoa(bin.major) + " database")
		if err := makeDatabase(ctx, bin, acct, dir, s.Data.SuperuserPassword); err != nil {
			return nil, err
		}
	}
	log := filepath.Join(s.Dir, "postgres.log")
	p, port, err := adopt(data, log)
	if err != nil {
		return nil, err
	}
	if mended { // by somebody, or the database is of an older version, whose only user was a superuser
		if p != nil {
			if err := p.Stop(ctx); err != nil {
				return nil, err
			}
			p = nil
		}
		opt.Log.Warn("state.json held no password of the private PostgreSQL's superuser: it gets a new one", "database",
			data)
		password := rand.Text()
		if err := setSuperuser(ctx, bin, acct, data, password); err != nil {
			return nil, err
		}
		if err := s.Update(func(d *StateData) { d.SuperuserPassword = password }); err != nil {
			return nil, err
		}
	}
	if p == nil {
		if p, port, err = spawn(ctx, s.Data.PostgresPort, opt, bin, acct, data, log); err != nil {
			return nil, err
		}
	}
	to := s.Data
	to.PostgresPort = port
	if err := p.ready(ctx, to); err != nil {
		_ = p.Stop(context.WithoutCancel(ctx))
		if opt.KeepPort && noSocket(err) {
			err = &PortError{port, err}
		}
		return nil, err
	}
	if p.adopted {
		opt.Log.Info("reusing the PostgreSQL that is already running", "pid", p.pid)
	}
	p.url, p.superuser = to.URL(), to.SuperuserURL()
	return p, s.Update(func(d *StateData) { d.PostgresDir, d.PostgresPort = dir, port })
}

// madeBy returns the major version that made a data directory; 0 means that there is none.
func madeBy(data string) (int, error) {
	file := filepath.Join(data, "PG_VERSION")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if inside, _ := os.ReadDir(data); len(inside) > 0 {
			return 0, fmt.Errorf("%s is damaged: it holds files and no PG_VERSION. Restore it, or move it away. "+
				"Nothing was changed", data)
		}
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || major < 1 {
		return 0, fmt.Errorf("%s is damaged: it holds %q and no version of PostgreSQL. Restore it, or move the "+
			"directory away. Nothing was changed", file, text[:min(len(text), 40)])
	}
	return major, nil
}

// makeDatabase makes the data directory beside its place and renames it there: it is whole or absent.
func makeDatabase(ctx context.Context, bin binaries, acct *account, dir, password string) error {
	fresh, run := filepath.Join(dir, "new"), filepath.Join(dir, "run")
	if err := os.RemoveAll(fresh); err != nil { // of a start that was killed
		return err
	}
	for _, d := range []string{fresh, run} {
		if err := errors.Join(os.MkdirAll(d, 0o700), acct.own(d)); err != nil {
			return err
		}
	}
	if err := initdb(ctx, bin, acct, fresh, filepath.Join(run, "password"), password); err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	if err := os.Remove(data); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is empty
		return err
	}
	return os.Rename(fresh, data)
}

// initdb fills a folder. The password goes through a file, for initdb cannot read it from a pipe of another account.
func initdb(ctx context.Context, bin binaries, acct *account, data, file, password string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// the folder is the account's: follow no link in it
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file) }()
	_, err = f.WriteString(password + "\n")
	if acct != nil {
		err = errors.Join(err, f.Chown(acct.uid, acct.gid))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin.dir, "initdb"), "-D", data, "-U", superuser, "-A",
		"scram-sha-256", "-E", "UTF8", "--no-locale", "-k", "--no-sync", "--pwfile="+file)
	confine(cmd, bin, acct)
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(tail(out)))
	}
	return nil
}

// setSuperuser writes a new password of the superuser into a data directory on which no server runs. The one that older
// versions made was named as the owner is now, and can neither be demoted nor rename itself.
func setSuperuser(ctx context.Context, bin binaries, acct *account, data, password string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(bin.dir, "postgres"), "--single", "-D", data, "postgres")
	confine(cmd, bin, acct)
	cmd.Stdin = strings.NewReader("UPDATE pg_catalog.pg_authid SET rolname = '" + superuser +
		"' WHERE oid = 10 AND rolname = '" + owner + "'\nALTER ROLE " + superuser + " PASSWORD '" + password + "'\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set a new password: %w: %s", err,
			bytes.TrimSpace(tail(bytes.ReplaceAll(out, []byte(password), []byte("***")))))
	}
	return nil
}

// confine makes a program of PostgreSQL run as the account, with nothing of our environment: that may hold secrets.
func confine(cmd *exec.Cmd, bin binaries, acct *account) {
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=" + bin.dir + ":/usr/bin:/bin"}
	cmd.SysProcAttr = attributes(acct)
}

func tail(b []byte) []byte {
	if len(b) > 1500 {
		b = b[len(b)-1500:]
	}
	return b
}

// ready waits until the server answers, and makes the roles and the database. A recovery may take its time.
func (p *Postgres) ready(ctx context.Context, d StateData) error {
	silent := time.NewTimer(60 * time.Second)
	defer silent.Stop()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		err := setUp(ctx, d)
		if err == nil {
			return nil
		}
		switch pg, _ := errors.AsType[*pgconn.PgError](err); {
		case pg == nil:
		case pg.Code == "57P03": // starting up, or shutting down
			silent.Reset(60 * time.Second)
		case pg.Code == "28P01":
			return errors.New("it does not take the superuser_password in state.json: remove that line, and the next " +
				"start sets a new one")
		case !strings.HasPrefix(pg.Code, "53") && !strings.HasPrefix(pg.Code, "57"): // no want of resources, no stop
			return err
		}
		select {
		case <-p.exited:
			return p.ended()
		case <-ctx.Done():
			return ctx.Err()
		case <-silent.C:
			return fmt.Errorf("the server does not answer: %w (its log: %s)", err, p.log)
		case <-tick.C:
		}
	}
}

// ended says why the server is gone.
func (p *Postgres) ended() error {
	if p.adopted {
		return errLeft
	}
	reason := "the server stopped"
	if p.err != nil {
		reason += ": " + p.err.Error()
	}
	text, _ := os.ReadFile(p.log)
	text = text[min(int64(len(text)), p.logged):]
	return fmt.Errorf("%s: %s", reason, bytes.TrimSpace(tail(text)))
}

// URL reaches the database cryptoviz as its owner. It holds the password.
func (p *Postgres) URL() string { return p.url }

// SuperuserURL reaches it as the superuser, whom the pipeline never runs as. It holds the password.
func (p *Postgres) SuperuserURL() string { return p.superuser }
