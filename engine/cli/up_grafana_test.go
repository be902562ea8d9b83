package cli

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// While an up runs, plan and apply bring its data to a Grafana of the user's own. Without credentials they say in
// their first lines that Grafana is left out, and never that all of pipeline.hcl is there.
func TestUpWithAGrafana(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a PostgreSQL of its own")
	}
	srv := grafanatest.New(t, grafanatest.V12)
	env := map[string]string{"GRAFANA_URL": srv.URL, "GRAFANA_AUTH": srv.Token, "GRAFANA_DB_HOST": "elsewhere:5432", "GRAFANA_DB_PASSWORD": "of-another"}
	dir := stateFolder(t)
	up := startUpIn(t, env, "--simulate", "--state", dir)
	eventually(t, up, "a first row", func() bool { return strings.Contains(up.stderr.String(), "first row stored") })
	if !strings.Contains(up.stderr.String(), "Grafana is not touched: cryptoviz apply --file ../../pipeline.hcl --state "+dir) || srv.Dashboard("cv-market-overview") != nil {
		t.Errorf("up speaks to Grafana, or does not say what does:\n%s", up.stderr)
	}
	run := func(env map[string]string, args ...string) string {
		t.Helper()
		out, errs, code := commandIn(t.Context(), env, append(args, "--state", dir)...)
		if code != 0 {
			t.Fatalf("%v: %d\n%s%s", args, code, out, errs)
		}
		return out + errs
	}
	if out := run(env, "plan"); !strings.Contains(out, "datasource.cryptoviz will be created") || !strings.Contains(out, "data sources in Grafana read that PostgreSQL") {
		t.Errorf("plan:\n%s", out)
	}
	run(env, "apply", "--auto-approve")
	if out := run(env, "plan"); !strings.Contains(out, "No changes. Everything matches pipeline.hcl.") {
		t.Errorf("a plan after apply:\n%s", out)
	}
	if srv.Dashboard("cv-market-overview") == nil {
		t.Error("there is no dashboard")
	}

	var source url.URL // as Grafana opens it
	srv.Source("cryptoviz", func(f, j map[string]any, secrets map[string]string) {
		user, _ := f["user"].(string)
		host, _ := f["url"].(string)
		database, _ := j["database"].(string)
		mode, _ := j["sslmode"].(string)
		source = url.URL{Scheme: "postgres", User: url.UserPassword(user, secrets["password"]), Host: host, Path: database, RawQuery: "sslmode=" + mode}
	})
	conn, err := pgx.Connect(t.Context(), source.String())
	if err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM raw_crypto_data").Scan(&rows); err != nil || rows == 0 {
		t.Errorf("Grafana reads %d rows: %v", rows, err)
	}
	if _, err := conn.Exec(t.Context(), "DELETE FROM raw_crypto_data"); err == nil {
		t.Error("Grafana may delete rows")
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}

	for _, args := range [][]string{{"plan"}, {"apply", "--auto-approve"}} {
		out, errs, code := commandIn(t.Context(), nil, append(args, "--state", dir)...)
		head := strings.Split(out, "\n")
		i := slices.IndexFunc(head, func(line string) bool {
			return strings.HasPrefix(line, "      Grafana     left out: grafana.auth has no value (")
		})
		if code != 0 || i < 0 || i > 4 || !strings.Contains(out, "\nNo changes to Kafka and PostgreSQL. Grafana was left out.\n") || strings.Contains(out, "left pipeline.hcl") {
			t.Errorf("%v without credentials: %d\n%s%s", args, code, out, errs)
		}
	}
	var saved plan.JSON
	out, errs, _ := commandIn(t.Context(), nil, "plan", "--json", "--state", dir)
	if err := json.Unmarshal([]byte(out), &saved); err != nil || !slices.ContainsFunc(saved.Reads, func(r plan.Read) bool { return r.System == "Grafana" && r.LeftOut }) {
		t.Errorf("%v\n%s%s", err, out, errs)
	}
}
