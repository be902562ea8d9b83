package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/embedded"
	"github.com/cryptoviz/cryptoviz/engine/run"
	"github.com/cryptoviz/cryptoviz/engine/serve"
	"github.com/cryptoviz/cryptoviz/engine/simulate"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

const defaultListen = "127.0.0.1:9464"

// up is one run of the command.
type up struct {
	env      *env
	simulate bool
	recorded string
	speed    float64
	seed     uint64
	fresh    bool
	yes      bool
	listen   string
	listenIs bool // the user chose it
	plain    bool
	binaries string
	began    time.Time

	p         *spec.Pipeline
	state     *embedded.State
	clock     clock.Clock
	pg        *embedded.Postgres
	exchanges *simulate.Server // nil for live data
	log       *slog.Logger
}

func (e *env) newUp() *cobra.Command {
	u := &up{env: e}
	c := &cobra.Command{
		Use:   "up",
		Short: "Run everything on this machine, with nothing installed but this program",
		Long: `Start an embedded Kafka and a private PostgreSQL under the state directory, make them match pipeline.hcl, and run
the pipeline. The data is kept: the next up goes on where this one stopped. Ctrl-C stops it.

PostgreSQL is an installed one if there is one (with TimescaleDB if that is there), else the published binaries,
downloaded once and checked. Both services listen on loopback only.

In a second terminal the other commands use these services. With GRAFANA_URL and GRAFANA_AUTH, apply makes the
dashboards in a Grafana of yours on this machine, and its data sources read this PostgreSQL.

Without a network, --simulate plays every exchange from the samples beside its definition, through the same fetch code
and a real socket; --recorded DIR plays recorded traffic. A state directory is live, simulated or recorded for good.`,
		Example: `  cryptoviz up                              live market data
  cryptoviz up --simulate                   no network needed
  cryptoviz up --simulate --speed 600       ten minutes a second: midnight and the rollup come soon
  cryptoviz up --recorded captures --state /tmp/replay`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u.listenIs = cmd.Flags().Changed("listen")
			return u.run(cmd.Context())
		},
	}
	f := c.Flags()
	f.BoolVar(&u.simulate, "simulate", false,
		"play the exchanges from the definitions' own samples; prices follow a seeded walk")
	f.StringVar(&u.recorded, "recorded", "", "play the recorded traffic in `DIR` instead: SOURCE*.ndjson")
	f.Float64Var(&u.speed, "speed", 1, "engine seconds a second, 1 to 3600; only with --simulate or --recorded")
	f.Uint64Var(&u.seed, "seed", 1, "of the simulated walk: the same seed gives the same prices")
	f.BoolVar(&u.fresh, "fresh", false, "delete what the state directory holds and start over, after a confirmation")
	f.BoolVar(&u.yes, "yes", false, "confirm --fresh")
	f.StringVar(&u.listen, "listen", defaultListen, "`HOST:PORT` of /metrics, /healthz and /readyz; \"\" for none")
	f.BoolVar(&u.plain, "plain", false, "log lines instead of the live view, also on a terminal")
	f.StringVar(&u.binaries, "postgres-bin", "",
		"`DIR` of the PostgreSQL programs to use; default: found, or downloaded")
	c.MarkFlagsMutuallyExclusive("simulate", "recorded")
	return c
}

func (u *up) mode() string {
	switch {
	case u.simulate:
		return "simulated"
	case u.recorded != "":
		return "recorded"
	}
	return "live"
}

func (u *up) run(ctx context.Context) (err error) {
	u.began = time.Now()
	if u.speed < 1 || u.speed > 3600 {
		return fmt.Errorf("--speed %v is out of range: 1 to 3600", u.speed)
	}
	if u.speed != 1 && u.mode() == "live" {
		return errors.New("--speed needs --simulate or --recorded: live data comes at its own pace")
	}
	if u.env.state == "" {
		return errors.New("--state needs a folder: up keeps its data there")
	}
	if u.p, err = u.env.load(); err != nil {
		return err
	}
	if u.log, err = u.env.logger(u.env.Stderr); err != nil {
		return err
	}
	if u.state, err = embedded.LockState(u.env.state); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.state.Close()) }()
	if err := u.prepare(); err != nil {
		return err
	}
	return u.services(ctx)
}

// prepare makes sure of everything that may be wrong before it changes the state directory: the wrong folder of
// recordings must not make it one of recorded data for good.
func (u *up) prepare() error {
	if u.fresh {
		if err := u.confirmFresh(); err != nil {
			return err
		}
	} else if err := u.state.CheckMode(u.mode()); err != nil {
		return err
	}
	u.clock = clock.Real()
	if u.speed != 1 || !u.state.Data.Virtual.IsZero() && !u.fresh {
		start := time.Now().UTC()
		if u.state.Data.Virtual.After(start) && !u.fresh {
			start = u.state.Data.Virtual
		}
		u.clock = clock.Fast(start, u.speed)
	}
	if err := u.prepareExchanges(); err != nil {
		return err
	}
	if u.fresh {
		if err := u.state.Clear(); err != nil {
			return err
		}
	}
	return u.state.SetMode(u.mode())
}

// confirmFresh asks whether what the state directory holds may go.
func (u *up) confirmFresh() error {
	if !u.yes && u.state.Data.Mode != "" {
		ok, err := u.env.confirm(fmt.Sprintf("This deletes all %s data in %s.", u.state.Data.Mode, u.state.Dir), "yes")
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("--fresh was not confirmed: nothing was deleted. Without a terminal add --yes")
		}
	}
	return nil
}

// services starts Kafka and PostgreSQL, runs the pipeline on them, and stops them in the opposite order.
func (u *up) services(ctx context.Context) (err error) {
	progress := u.progress()
	progress("starting PostgreSQL")
	opt := embedded.PostgresOptions{Log: u.log, Progress: progress, Binaries: u.binaries}
	if mirror, ok := u.env.Getenv("CRYPTOVIZ_POSTGRES_MIRROR"); ok {
		opt.Mirror = mirror
	}
	if u.pg, err = embedded.StartPostgres(ctx, u.state, opt); err != nil {
		return err
	}
	var mu sync.Mutex
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		err = errors.Join(err, u.pg.Stop(context.WithoutCancel(ctx)))
	}()
	progress("starting Kafka")
	kafka, err := embedded.StartKafka(ctx, u.state, u.log)
	if err != nil {
		return err
	}
	defer kafka.Stop()
	u.state.Data.Point(u.p)
	if g := u.p.Grafana; g != nil && g.Auth.Reveal() != "" {
		u.env.note("        Grafana is not touched: %s, in a second terminal, makes its dashboards",
			u.env.commandLine("apply"))
	}
	u.p.Grafana = nil // it may be away, and the pipeline runs without it
	u.env.rolesURL = spec.NewSecret(u.pg.SuperuserURL())
	var endpoint func(*spec.Source) string
	if u.exchanges != nil {
		if err := u.exchanges.Start(ctx); err != nil {
			return err
		}
		defer func() { _ = u.exchanges.Close() }()
		endpoint = u.exchanges.Endpoint
	}
	progress("applying " + u.env.file)
	if err := u.match(ctx); err != nil {
		return err
	}
	host, _ := os.Hostname()
	logTo, closeLog, err := u.logTarget()
	if err != nil {
		return err
	}
	defer closeLog()
	if u.log, err = u.env.logger(logTo); err != nil {
		return err
	}
	if mode := u.mode(); mode != "live" {
		u.log = u.log.With("data", mode)
	}
	engine, err := run.Open(ctx, u.p, run.All, run.Options{
		Clock: u.clock, Log: u.log, Mode: u.mode(), Mark: true, Owner: fmt.Sprintf("%s/%d", host, os.Getpid()),
		Instance: "up",
		Endpoint: endpoint, Disks: u.state.Disks(), Version: u.env.Version,
	})
	if err != nil {
		return err
	}
	defer engine.Close()
	asked := ctx // ends when the user wants it
	group, ctx := errgroup.WithContext(ctx)
	listening, err := u.listener(ctx)
	if err != nil {
		return err
	}
	if listening != nil {
		group.Go(func() error { return serve.Run(ctx, listening, serve.Handler(engine.Ready, engine), u.log) })
	}
	group.Go(func() error { return engine.Run(ctx) })
	group.Go(func() error { return u.keepPostgres(ctx, opt, &mu) })
	group.Go(func() error { return u.keepVirtual(ctx) })
	group.Go(func() error { u.state.RotateLogs(ctx, u.log); return nil })
	if u.mode() == "live" {
		group.Go(func() error { u.tellUnreachable(ctx); return nil })
	}
	v := &view{
		up: u, engine: engine, kafka: kafka.Brokers()[0], metrics: listening, terminal: u.onTerminal(),
		log: logTo,
	}
	group.Go(func() error { return v.show(ctx) })
	err = group.Wait()
	u.env.note("Stopped. Data is kept in %s; run up again to continue.", u.env.state)
	if asked.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// progress tells each step that takes a while; on the live view's terminal it is replaced later.
func (u *up) progress() func(string) {
	return func(step string) { u.env.note("%5.1fs  %s", time.Since(u.began).Seconds(), step) }
}

func (u *up) onTerminal() bool {
	return !u.plain && u.env.draws(u.env.Stdout) && isTerminal(u.env.Stderr)
}

// logTarget is standard error, or a file while the live view holds the terminal.
func (u *up) logTarget() (io.Writer, func(), error) {
	if !u.onTerminal() {
		return u.env.Stderr, func() {}, nil
	}
	f, err := os.OpenFile(filepath.Join(u.state.Dir, "cryptoviz.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the log: %w", err)
	}
	return f, func() { _ = f.Close() }, nil
}

// prepareExchanges reads what the server that plays them will play, and switches the sources off that have nothing, or
// on; for live data there is no such server.
func (u *up) prepareExchanges() error {
	if u.mode() == "live" {
		return nil
	}
	opt := simulate.Options{Seed: u.seed, Clock: u.clock, Log: u.log}
	if u.recorded != "" {
		info, err := os.Stat(u.recorded)
		if err != nil || !info.IsDir() {
			return fmt.Errorf("--recorded %s is no folder with recorded traffic", u.recorded)
		}
		opt.Recorded = openFolder(u.recorded)
	}
	var err error
	if u.exchanges, err = simulate.New(u.p, opt); err != nil {
		return err
	}
	played, remedy := 0, ""
	for _, s := range u.p.Sources {
		there, unfit := u.exchanges.Plays(s.Name), u.exchanges.Silent(s.Name)
		switch {
		case u.recorded != "" && there && !s.Enabled:
			s.Enabled = true
			u.env.note("        source %s is on: there is a recording of it", s.Name)
		case unfit != nil:
			u.env.note("        source %s is off: %s", s.Name, plan.Visible(unfit.Error()))
		case u.recorded != "" && s.Enabled && !there:
			u.env.note("        source %s is off: there is no recording of it", s.Name)
		case s.Enabled && !there:
			remedy = fmt.Sprintf("write %s, what the API of %s sends", filepath.Join(filepath.Dir(u.env.file),
				simulate.Fixtures(s)[0]), s.Name)
			u.env.note("        source %s is off: %s is missing", s.Name, simulate.Fixtures(s)[0])
		}
		if s.Enabled = s.Enabled && there; s.Enabled {
			played++
		}
	}
	switch {
	case played > 0:
		return nil
	case u.recorded != "":
		return fmt.Errorf("nothing can be played: %s holds no recording of a source of %s (its files are "+
			"SOURCE.ndjson and SOURCE-*.ndjson)", u.recorded, u.env.file)
	case remedy == "":
		return fmt.Errorf("nothing can be played: no source of %s is enabled", u.env.file)
	}
	return fmt.Errorf("nothing can be played: no source has a sample: %s", remedy)
}

// tellUnreachable says once that no source answers, and how to go on without a network.
func (u *up) tellUnreachable(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	reached := make(chan bool)
	tried := 0
	for _, s := range u.p.Sources {
		if !s.Enabled {
			continue
		}
		tried++
		go func() {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostPort(s))
			if err == nil {
				_ = conn.Close()
			}
			reached <- err == nil
		}()
	}
	any := false
	for range tried {
		any = <-reached || any
	}
	if !any && tried > 0 {
		other := *u.env
		other.state += "-simulated"
		u.log.Warn("no source can be reached from this machine", "without_a_network",
			other.commandLine("up", "--simulate"))
	}
}

func hostPort(s *spec.Source) string {
	var raw string
	if s.Definition.Poll != nil {
		raw = s.Definition.Poll.URL
	} else {
		raw = s.Definition.Stream.URL
	}
	target, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	port := target.Port()
	if port == "" {
		port = map[string]string{"http": "80", "ws": "80"}[target.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(target.Hostname(), port)
}
