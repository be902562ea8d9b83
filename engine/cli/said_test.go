package cli

import (
	"log/slog"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// TestViewFits: what is drawn is not higher than the terminal; first the sources go, then what is at the end.
func TestViewFits(t *testing.T) {
	screen := []string{"head", "", "SOURCE", "a", "\x1b[31mb\x1b[0m", "c", "d", "", strings.Repeat("x", 25), "end"}
	for height, want := range map[int]string{
		11: "head||SOURCE|a|\x1b[31mb\x1b[0m|c|d||" + screen[8] + "|end",
		10: "head||SOURCE|a|\x1b[31mb\x1b[0m|… and 2 more||" + screen[8] + "|end",
		9:  "head||SOURCE|a|… and 3 more||" + screen[8] + "|end",
		8:  "head||SOURCE|… and 4 more||" + screen[8] + "|end",
		7:  "head||SOURCE|… and 4 more||" + screen[8],
		6:  "head||SOURCE|… and 4 more|",
		1:  "head",
	} {
		if got := strings.Join(fit(screen, 4, 20, height), "|"); got != want {
			t.Errorf("in %d lines: %q, want %q", height, got, want)
		}
	}
}

// TestHintsWork: a command that is shown leads to the same pipeline and data, whatever the shell makes of their names.
func TestHintsWork(t *testing.T) {
	for want, e := range map[string]*env{
		"cryptoviz query": {file: "pipeline.hcl", state: ".cryptoviz", vars: []string{"password=hunter2"}},
		"cryptoviz query --file '/my files/$a.hcl' --state '/it'\\''s here' --var-file prod.vars": {file: "/my files/$a.hcl", state: "/it's here", varFiles: []string{"prod.vars"}},
	} {
		if got := e.commandLine("query"); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	u := &up{env: &env{file: "pipeline.hcl", state: "s"}}
	var c plan.Change
	c.Address = "table.prices"
	c.Find(plan.Code{ID: "CV-T06", Class: plan.Destroys}, "", "destroys")
	if got, want := u.settle(c), "cryptoviz apply --allow CV-T06@table.prices=1 --state s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := u.settle(plan.Change{}), "cryptoviz plan --state s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestDumbTerminal: it gets no escape sequences.
func TestDumbTerminal(t *testing.T) {
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = f.Close() }()
	for kind, want := range map[string]bool{"xterm": true, "": true, "dumb": false} {
		e := &env{IO: IO{Stdout: f, Stderr: f, Getenv: func(name string) (string, bool) { return kind, name == "TERM" && kind != "" }}}
		if got := (&up{env: e}).onTerminal(); got != want || isTerminal(f) && e.draws(f) != want {
			t.Errorf("TERM=%s: a view is drawn: %v", kind, got)
		}
	}
}

func TestLogIsInUTC(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	at := time.Date(2026, 3, 4, 1, 0, 0, 0, berlin)
	for _, form := range []string{"text", "json"} {
		var out strings.Builder
		log, err := (&env{logForm: form, logLevel: "info"}).logger(&out)
		if err != nil {
			t.Fatal(err)
		}
		line := slog.NewRecord(at, slog.LevelInfo, "a", 0)
		line.Add("slot", at)
		if err := log.Handler().Handle(t.Context(), line); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "+01:00") || strings.Count(out.String(), "2026-03-04T00:00:00") != 2 {
			t.Error(out.String())
		}
	}
}

func TestStages(t *testing.T) {
	for only, want := range map[string]string{"work,work": "work", "work, rollup": "work,rollup", " schedule": "schedule", "x": "", "": ""} {
		_, names, err := parseStages(strings.Split(only, ","))
		if got := strings.Join(names, ","); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", only, got, err)
		}
	}
}

// TestDatabaseThatRefuses: it answers, so that starting it is no remedy.
func TestDatabaseThatRefuses(t *testing.T) {
	dsn, err := url.Parse(testkit.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	wrong, gone := *dsn, *dsn
	wrong.User = url.UserPassword(dsn.User.Username(), "wrong")
	gone.Path = "/nosuch"
	for _, c := range []struct{ dsn, want string }{
		{wrong.String(), "password authentication failed for user \"cryptoviz\". Give the right user and password in DATABASE_URL"},
		{gone.String(), "database \"nosuch\" does not exist. Create that database"},
	} {
		code, errs := queryOn(t, c.dsn, "SELECT 1")
		if code != 1 || !strings.Contains(errs, "answers and refuses the connection: "+c.want) || strings.Contains(errs, "Start it") {
			t.Errorf("exit %d, %s, want %s", code, errs, c.want)
		}
	}
}

func TestKafkaThatRefuses(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", "right"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) { // it only hangs up by itself
		cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	p := &spec.Pipeline{Kafka: spec.Kafka{Brokers: cluster.ListenAddrs(), SASLMechanism: "plain", SASLUser: "admin", SASLPassword: spec.NewSecret("wrong")}}
	if _, err := (&env{file: "pipeline.hcl"}).brokers(t.Context(), p); err == nil || !strings.Contains(err.Error(), " answers and refuses the user or the password: ") || strings.Contains(err.Error(), "Start it") {
		t.Error(err)
	}
}

func TestStatusRefusesNegativeTime(t *testing.T) {
	if _, errs, code := command(t.Context(), "status", "--every", "-1s"); code != 1 || !strings.Contains(errs, "--every -1s is no time between two looks") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestQueryFormats(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT 1 AS a, 'x' AS b, NULL AS c, true AS d, '{\"k\":1}'::jsonb AS e, 'NaN'::float8 AS f": `{"a": 1, "b": "x", "c": null, "d": true, "e": {"k":1}, "f": "NaN"}`,
	} {
		if got := queryText(t, sql, "json"); !strings.Contains(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", sql, got, want)
		}
	}
	if got := queryText(t, "SELECT E'a\\x1b[31mb' AS x", "table"); strings.Contains(got, "\x1b") || !strings.Contains(got, "(1 row)") {
		t.Errorf("control characters reach the terminal: %q", got)
	}
	if got := queryText(t, "SELECT interval '1 day 2 hours' AS i, timestamptz '2026-11-22 00:00+00' AS t", "csv"); got != "i,t\n1 day 02:00:00,2026-11-22 00:00:00+00\n" {
		t.Errorf("csv: %q", got)
	}
}
