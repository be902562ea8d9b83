package provision_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func TestPlanFaults(t *testing.T) {
	t.Parallel()
	broker := testkit.Kafka(t).Addr()
	t.Run("file_damaged", func(t *testing.T) { planFileIsDamaged(t, broker) })
	t.Run("pipeline_changed", func(t *testing.T) { pipelineChangedMeanwhile(t, broker) })
	t.Run("second_apply", func(t *testing.T) { secondApply(t, broker) })
}

// A plan file that is not as it was written is refused, and it holds no secret.
func planFileIsDamaged(t *testing.T, broker string) {
	f := newFaulty(t, freshDatabase(t), broker)
	var file bytes.Buffer
	agreed := plan.Agree(f.plan())
	agreed.Tool, agreed.Pipeline = "1.2.3", "pipeline.hcl"
	if err := agreed.Write(&file); err != nil {
		t.Fatal(err)
	}
	good := file.String()
	for _, s := range []string{secret, f.grafana.Token, "SCRAM-SHA-256"} {
		if strings.Contains(good, s) {
			t.Errorf("the plan file holds %q", s)
		}
	}
	for _, test := range []struct{ name, text, says string }{
		{"empty", "", "it is not a plan"},
		{"other text", "terraform", "it is not a plan"},
		{"other JSON", `{"a": 1}`, "it is not a plan"},
		{"a list", `[1, 2]`, "it is not a plan"},
		{"half", good[:len(good)/2], "it is cut short or damaged"},
		{"no last byte", strings.TrimSpace(good)[:len(strings.TrimSpace(good))-1], "it is cut short or damaged"},
		{"other format", strings.Replace(good, `"format": 2,`, `"format": 3,`, 1), "it is of format 3 (cryptoviz 1.2.3), and this cryptoviz reads format 2: plan again"},
		{"older format", strings.Replace(good, `"format": 2,`, `"format": 1,`, 1), "it was made by an older cryptoviz (1.2.3), or printed by plan --json: plan again"},
		{"edited want", strings.Replace(good, `"new": "7d"`, `"new": "1d"`, 1), "it was edited or damaged"},
		{"no sum", regexp.MustCompile(`"sum": "[0-9a-f]+"`).ReplaceAllString(good, `"sum": ""`), "it is not a plan"},
		{"other sum", regexp.MustCompile(`"sum": "[0-9a-f]`).ReplaceAllString(good, `"sum": "x`), "it was edited or damaged"},
		{"type", strings.Replace(good, `"changes": [`, `"changes": [7, `, 1), "it is cut short or damaged"},
		{"twice", good + good, "it is cut short or damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := plan.ReadAgreement(strings.NewReader(test.text))
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v", err)
			}
		})
	}
	s, err := plan.ReadAgreement(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	results, err := f.triedAgreed(s, nil)
	t.Log(err)
	for _, r := range results {
		if r.Outcome != provision.Done {
			t.Errorf("%+v", r)
		}
	}
	f.empty("the whole plan from its file")
}

// pipeline.hcl changed after the plan was saved: what it says otherwise now is refused, and the rest goes on.
func pipelineChangedMeanwhile(t *testing.T, broker string) {
	f := newFaulty(t, freshDatabase(t), broker)
	found := saved(t, f.plan())
	f.p.Topics[0].Config["retention.ms"] = "3600000"
	f.p.Tables[1].Description = "Other."
	f.p.Views[0].Query += " LIMIT 1"
	f.p.Alerts = nil
	results, err := f.triedAgreed(found, nil)
	t.Log(said(results, err))
	done := outcomes(results)
	for address, moved := range map[string]string{"topic.ticks": "pipeline.hcl", "table.markets": "pipeline.hcl", "view.latest": "pipeline.hcl", "alert.stale": "block"} {
		if r := done[address]; r.Outcome != provision.Refused || len(r.Since) != 1 || r.Since[0].What != moved {
			t.Errorf("%+v", r)
		}
	}
	for address, want := range map[string]provision.Outcome{"topic.trades": provision.Done, "table.ticks": provision.Done, "dashboard.board": provision.Done, "role." + f.p.Roles[0].Name: provision.Skipped} {
		if done[address].Outcome != want {
			t.Errorf("%+v", done[address])
		}
	}
	f.recovers("planned again")
}

// A second apply is told who is at work and how to end it; that way the first one stops.
func secondApply(t *testing.T, broker string) {
	url := freshDatabase(t)
	f, other := newFaulty(t, url, broker), database(t, url)
	found := f.plan()
	once := false
	results, err := f.tried(found, func(provision.Event) {
		if once {
			return
		}
		once = true
		second, err := f.open().Apply(t.Context(), found, provision.Options{})
		if err == nil || len(second) > 0 {
			t.Fatalf("%v %+v", err, second)
		}
		t.Log(err)
		remedy := regexp.MustCompile(`SELECT pg_terminate_backend\(\d+\)`).FindString(err.Error())
		if remedy == "" || !strings.Contains(err.Error(), `"cryptoviz", user `) || !strings.Contains(err.Error(), time.Now().UTC().Format("2006-01-02")) {
			t.Fatal("it does not tell who, since when, and what to do")
		}
		if _, err := other.Exec(t.Context(), remedy); err != nil {
			t.Error(err)
		}
		release := take(t, f)
		release()
	})
	if text := said(results, err); !strings.Contains(text, ledger.ErrLockLost.Error()) {
		t.Error(text)
	}
	f.recovers("afterwards")
}

// take takes the lock of apply as soon as it is free.
func take(t *testing.T, f *faulty) (release func()) {
	t.Helper()
	testkit.Eventually(t, func() (err error) {
		_, release, err = ledger.Lock(t.Context(), f.db)
		return err
	})
	return release
}
