package provision_test

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/grafana/grafanatest"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

var (
	seeds = flag.Int("seeds", 8, "random pipelines of TestProperty on PostgreSQL, and a quarter of it on TimescaleDB; also how closely TestDatabaseFaults cuts")
	first = flag.Uint64("seed", 1, "the first of them: -seeds 1 -seed N repeats one")
)

// TestPropertyOnPostgres makes random pipelines, changes them at random, and holds apply to its law: after it, a plan is empty, but for
// what the plan had said to be impossible. A plan changes nothing. Destroy leaves nothing behind.
func TestPropertyOnPostgres(t *testing.T) {
	t.Parallel()
	kafka := client(t, testkit.Kafka(t).Addr())
	for i := range *seeds {
		seed := *first + uint64(i)
		t.Run(fmt.Sprint("seed_", seed), func(t *testing.T) {
			property(t, seed, testkit.Postgres(t), kafka, false)
		})
	}
}

func TestPropertyOnTimescale(t *testing.T) {
	t.Parallel()
	kafka := client(t, testkit.Kafka(t).Addr())
	for i := range (*seeds + 3) / 4 {
		seed := *first + uint64(i)
		t.Run(fmt.Sprint("seed_", seed), func(t *testing.T) { property(t, seed, testkit.Timescale(t), kafka, true) })
	}
}

func client(t testing.TB, brokers ...string) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// database opens a database as the commands do.
func database(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	cfg, err := connect.Postgres(spec.Database{URL: spec.NewSecret(url)})
	if err != nil {
		t.Fatal(err)
	}
	db, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// lab is a harness whose pipeline is random.
type lab struct {
	*harness
	m       *maker
	grafana *grafanatest.Server
}

func property(t *testing.T, seed uint64, url string, client *kgo.Client, timescale bool) {
	t.Helper()
	db := database(t, url)
	l := &lab{&harness{t: t, db: db, kafka: client}, newMaker(seed, fmt.Sprintf("p%d", seed), timescale), grafanatest.New(t, pick(newMaker(seed, "", false), grafanatest.Profiles()...))}
	defer func() {
		if t.Failed() && l.p != nil {
			t.Logf("seed %d, %s:\n%s", seed, l.grafana.Profile, written(l.p)["pipeline.hcl"].Data)
		}
	}()
	empty := l.inventory()
	l.declare(l.m.pipeline())
	l.converge()
	for range 3 {
		if t.Failed() {
			return
		}
		l.fill()
		l.m.mutate(l.p, 20)
		l.declare(l.p)
		l.converge()
	}
	l.destroy(empty)
}

// declare takes the pipeline as its text says it.
func (l *lab) declare(p *spec.Pipeline) {
	l.p = mustLoad(l.t, written(p), map[string]string{"GRAFANA_URL": l.grafana.URL, "GRAFANA_AUTH": l.grafana.Token})
}

func (l *lab) inventory() []string { return inventory(l.t, l.db, l.kafka, l.m.prefix+"_") }

// converge applies until nothing more can be done. What one apply leaves must have been impossible.
func (l *lab) converge() {
	l.t.Helper()
	before := l.inventory()
	l.grafana.Forget()
	found := l.plan()
	if writes := l.grafana.Writes(); len(writes) > 0 {
		l.t.Errorf("plan writes to Grafana: %+v", writes)
	}
	for _, d := range differ(before, l.inventory()) {
		l.t.Errorf("plan changes something: %s", d)
	}
	agreed := plan.Agree(found)
	if l.m.one(2) {
		agreed = saved(l.t, found)
	}
	for round := 1; !l.t.Failed(); round++ {
		excused := without(found)
		l.nothingDeclaredBlocks(found)
		for _, r := range l.applyAgreed(agreed, everything(found)...) {
			if r.Outcome == provision.Failed || r.Outcome == provision.Refused || r.Outcome == provision.Skipped && !excused[r.Address] {
				l.t.Errorf("round %d: %s %s: %s %+v\n%s", round, r.Outcome, r.Address, r.Reason, r.Since, told(changes(found)[r.Address]))
			}
		}
		next := l.plan()
		progress := 0
		for _, c := range next.Changes {
			if (c.Changes() || c.Marks()) && !excused[c.Address] {
				l.t.Errorf("round %d leaves %s", round, told(c))
			}
		}
		excused = without(next)
		for _, c := range next.Changes {
			if c.Changes() && !excused[c.Address] {
				progress++
			}
		}
		if found, agreed = next, plan.Agree(next); progress == 0 {
			return
		}
		if round == 5 {
			l.t.Error("it does not end")
		}
	}
}

// nothingDeclaredBlocks wants what stands in the way of a change to be an object without a block: one that lost it, here.
func (l *lab) nothingDeclaredBlocks(found plan.Plan) {
	l.t.Helper()
	refused := ""
	for _, c := range found.Changes {
		if c.Impossible() {
			refused += c.Address + " "
		}
	}
	for _, c := range found.Changes {
		for _, f := range c.Findings {
			if slices.Contains([]string{"CV-T20", "CV-V03", "CV-V05", "CV-A09"}, f.Code) && !strings.Contains(f.Text, "is refused") &&
				!slices.ContainsFunc(found.Orphans, func(o string) bool { return strings.Contains(f.Text, o+" ") || strings.Contains(f.Text, o+",") }) {
				l.t.Errorf("%s %s: %s\nimpossible: %s", c.Address, f.Code, f.Text, refused)
			}
		}
	}
}

// told is a change for a message.
func told(c plan.Change) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s ours=%t", c.Action, c.Address, c.Ours)
	for _, d := range c.Diffs {
		fmt.Fprintf(&out, "\n    %s: %q -> %q (%s)", d.Name, d.Old, d.New, d.Cause)
	}
	for _, f := range c.Findings {
		fmt.Fprintf(&out, "\n    %s %s: %s", f.Code, f.Class, f.Text)
	}
	for _, s := range c.Steps {
		fmt.Fprintf(&out, "\n    > %s", s)
	}
	return out.String()
}

// everything agrees to all that would be destroyed.
func everything(p plan.Plan) (out plan.Consents) {
	for _, c := range p.Changes {
		out = append(out, c.Needs()...)
	}
	return out
}

// without lists what cannot be done: impossible changes, what depends on them, and deletions of what those still need.
func without(p plan.Plan) map[string]bool {
	out := map[string]bool{}
	for again := true; again; {
		again = false
		for _, c := range p.Changes {
			if out[c.Address] {
				continue
			}
			if c.Impossible() || c.Action != plan.Delete && slices.ContainsFunc(c.Depends, func(d string) bool { return out[d] }) ||
				c.Action == plan.Delete && slices.ContainsFunc(p.Changes, func(o plan.Change) bool { return out[o.Address] && slices.Contains(o.Depends, c.Address) }) {
				out[c.Address], again = true, true
			}
		}
	}
	return out
}

// saved is the agreement to a plan, from a file.
func saved(t testing.TB, p plan.Plan) plan.Agreement {
	t.Helper()
	var file bytes.Buffer
	if err := plan.Agree(p).Write(&file); err != nil {
		t.Fatal(err)
	}
	s, err := plan.ReadAgreement(&file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill puts some rows into some tables. A row that a table does not take is left out.
func (l *lab) fill() {
	values := map[spec.ColumnType][]string{
		spec.Timestamptz: {"now() + i * interval '1 second'"}, spec.Text: {"'r' || i", "i::text", "'x'"}, spec.Double: {"i + 0.5", "i", "'NaN'"}, spec.Numeric: {"i + 0.25", "i"},
		spec.Bigint: {"i", "9007199254740993 + i"}, spec.Integer: {"i"}, spec.Boolean: {"i % 2 = 0"},
	}
	for _, t := range l.p.Tables {
		if l.m.one(2) {
			continue
		}
		var names, exprs []string
		for _, c := range t.Columns {
			if c.Generated == "" {
				names = append(names, `"`+c.Name+`"`)
				expr := pick(l.m, values[c.Type]...)
				if c.Null && l.m.one(3) {
					expr = "NULL"
				}
				exprs = append(exprs, expr)
			}
		}
		sql := fmt.Sprintf(`INSERT INTO "%s" (%s) SELECT %s FROM generate_series(1, %d) i ON CONFLICT DO NOTHING`, t.Name, strings.Join(names, ", "), strings.Join(exprs, ", "), 1+l.m.IntN(5))
		if _, err := l.db.Exec(l.t.Context(), sql); err != nil {
			l.t.Logf("%s: %v", sql, err)
		}
	}
}

// destroy deletes all that carries our mark, and looks for what is left. What lost its block counts when a removed block names it.
func (l *lab) destroy(empty []string) {
	l.t.Helper()
	for _, address := range l.plan().Orphans {
		kind, name, _ := strings.Cut(address, ".")
		l.p.Removed = append(l.p.Removed, &spec.Removed{Kind: kind, Name: name})
	}
	w := l.open().Destroying(nil)
	found, err := w.Plan(l.t.Context())
	if err != nil || len(found.Errors) > 0 {
		l.t.Fatalf("%v %+v", err, found.Errors)
	}
	results, err := w.Apply(l.t.Context(), found, provision.Options{Allow: everything(found)})
	for _, r := range results {
		if r.Outcome != provision.Done {
			l.t.Errorf("destroy: %s %s: %s", r.Outcome, r.Address, r.Reason)
		}
	}
	if err != nil {
		l.t.Fatalf("destroy: %v", err)
	}
	for _, d := range differ(empty, l.inventory()) {
		l.t.Errorf("destroy leaves %s", d)
	}
}
