package grafana

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Alert is the resource of an alert block.
type Alert struct {
	Spec *spec.Alert
	Org  *Org
}

// Address is alert.NAME.
func (a *Alert) Address() string { return "alert." + a.Spec.Name }

// Where is its place in pipeline.hcl.
func (a *Alert) Where() string { return where(a.Spec.Range) }

func (a *Alert) dependsOn() []string {
	out := []string{"folder." + a.Spec.Folder.Name}
	if a.Spec.DataSource != nil {
		out = append(out, "datasource."+a.Spec.DataSource.Name)
	}
	return out
}

func (a *Alert) uid() string { return uidOf(a.Spec.Name) }

func (a *Alert) source() string {
	if a.Spec.DataSource == nil {
		return ""
	}
	return a.Spec.DataSource.UID
}

// want is what the block says.
func (a *Alert) want() *plan.State {
	return a.Org.ruleState(&rule{body: a.rule(), interval: int64(a.Spec.Every / time.Second)}, nil)
}

// Observe reads the rule.
func (a *Alert) Observe(ctx context.Context) (plan.Observation, error) {
	s, err := a.Org.load(ctx)
	if err != nil {
		return plan.Observation{}, err
	}
	live, err := a.Org.rule(ctx, s, a.uid())
	if err != nil {
		return plan.Observation{}, err
	}
	return plan.Observation{
		Live: a.Org.ruleState(live, a.rule()), Want: a.want(), DependsOn: a.dependsOn(),
		Assess: func(ctx context.Context, c *plan.Change) error { return a.assess(ctx, c, live) },
	}, nil
}

func (a *Alert) fresh(ctx context.Context) (*plan.State, error) {
	var body map[string]any
	if err := a.Org.client.call(ctx, http.MethodGet, append(slices.Clone(ruleRoute), a.uid()), nil, nil,
		&body); err != nil {
		return nil, err
	}
	live, err := a.Org.client.interval(ctx, body)
	if err != nil {
		return nil, err
	}
	return a.Org.ruleState(live, a.rule()), nil
}

// assess finds what cannot be done, and lists the requests.
func (a *Alert) assess(ctx context.Context, c *plan.Change, live *rule) error {
	s, err := a.Org.load(ctx)
	if err != nil {
		return err
	}
	if live != nil && live.body["isPaused"] == true {
		c.Note("it is paused in Grafana, and stays so")
	}
	if !c.Changes() {
		return nil
	}
	s.foresee(c)
	c.Do = a.make
	for _, r := range s.ruleList {
		if jsonvalue.Text(r["folderUID"]) != folderUID(a.Spec.Folder) || jsonvalue.Text(r["title"]) != a.Spec.Title ||
			jsonvalue.Text(r["uid"]) == a.uid() {
			continue
		}
		if s.major == 12 { // it takes both
			c.Note("the folder has an alert rule %q already, with the uid %s", a.Spec.Title, jsonvalue.Text(r["uid"]))
			continue
		}
		c.Find(codeTitleTaken, "title",
			"the folder has an alert rule %q already, with the uid %s: give one of them another title",
			a.Spec.Title, jsonvalue.Text(r["uid"]))
	}
	if live == nil {
		c.Steps = append(c.Steps, "POST /"+strings.Join(ruleRoute, "/")+" "+jsonvalue.Encode(a.rule()))
		a.regroup(c, groupInterval)
		return nil
	}
	if p := jsonvalue.Text(live.body["provenance"]); p != "" && p != "api" {
		c.Find(codeProvisioned, "", "%s is provisioned by another way (%s) than this API", c.Address, p)
	}
	if bodyChanges(*c) {
		c.Steps = append(c.Steps, fmt.Sprintf("PUT /%s/%s %s", strings.Join(ruleRoute, "/"), a.uid(),
			jsonvalue.Encode(overlay(live.body, a.rule(), *c))))
	}
	now := live.interval
	if _, moves := c.Diff("group"); moves {
		now = groupInterval
	} else if _, moves := c.Diff("folder"); moves {
		now = groupInterval
	}
	a.regroup(c, now)
	for _, d := range c.Diffs {
		if d.Name == "model" {
			c.Note("%s: %s", d.Name, some(differences(d), 6))
		}
	}
	return nil
}

// differences names what differs inside an attribute.
func differences(d plan.Diff) []string {
	var from, to any
	if json.Unmarshal([]byte(d.OldRaw), &from) != nil || json.Unmarshal([]byte(d.NewRaw), &to) != nil {
		from, to = strings.Join(strings.Fields(d.OldRaw), " "), strings.Join(strings.Fields(d.NewRaw), " ")
	}
	return jsonvalue.Differences(from, to)
}

func (a *Alert) every() int64 { return int64(a.Spec.Every / time.Second) }

func (a *Alert) regroup(c *plan.Change, now int64) {
	if a.every() != now {
		c.Steps = append(c.Steps, fmt.Sprintf("PUT /%s interval %d s",
			strings.Join(groupRoute(folderUID(a.Spec.Folder), a.uid()), "/"), a.every()))
	}
}

// locked is the header of a write: a rule that was made in the editor stays editable there, one that we made is
// locked. Grafana refuses to mix the two.
func locked(live *rule) []string {
	if live != nil && jsonvalue.Text(live.body["provenance"]) == "" {
		return []string{"X-Disable-Provenance", "true"}
	}
	return nil
}

// make creates or changes the rule, then its group's interval.
func (a *Alert) make(ctx context.Context, c plan.Change) error {
	s, err := a.Org.load(ctx)
	if err != nil {
		return err
	}
	live, err := a.Org.rule(ctx, s, a.uid())
	if err != nil {
		return err
	}
	defer s.rules.forget(a.uid())
	if err := a.write(ctx, live, c); err != nil {
		return a.Org.settled(ctx, a, c.Address, err)
	}
	return nil
}

func (a *Alert) write(ctx context.Context, live *rule, c plan.Change) error {
	call := a.Org.client.call
	switch {
	case c.Action == plan.Create:
		if err := call(ctx, http.MethodPost, ruleRoute, nil, a.rule(), nil); err != nil &&
			(!conflict(err) || !a.made(ctx)) {
			return err
		}
	case live == nil:
		return fmt.Errorf("%s is gone: plan again", c.Address)
	case bodyChanges(c):
		path := append(slices.Clone(ruleRoute), a.uid())
		if err := call(ctx, http.MethodPut, path, nil, overlay(live.body, a.rule(), c), nil,
			locked(live)...); err != nil {
			return err
		}
	}
	path := groupRoute(folderUID(a.Spec.Folder), a.uid())
	group, err := a.Org.client.group(ctx, folderUID(a.Spec.Folder), a.uid())
	if err != nil || group == nil || jsonvalue.Integer(group["interval"]) == a.every() {
		return err
	}
	group["interval"] = json.Number(strconv.FormatInt(a.every(), 10))
	return call(ctx, http.MethodPut, path, nil, group, nil, locked(live)...)
}

// made reports whether the rule is as it is wanted but for its interval: a first try was interrupted.
func (a *Alert) made(ctx context.Context) bool {
	live, err := a.fresh(ctx)
	if err != nil || live == nil {
		return false
	}
	diffs, _ := plan.Compare(nil, live, a.want())
	return !slices.ContainsFunc(diffs, func(d plan.Diff) bool { return d.Name != "every" })
}

// bodyChanges reports whether more than the interval changes, which is the group's.
func bodyChanges(c plan.Change) bool {
	return slices.ContainsFunc(c.Diffs, func(d plan.Diff) bool { return d.Name != "every" })
}

// removeRule deletes a rule.
func (o *Org) removeRule(ctx context.Context, s *snapshot, uid string) error {
	live, err := o.rule(ctx, s, uid)
	if err != nil || live == nil {
		return err
	}
	lib, err := o.client.library(ctx, locked(live)...)
	if err != nil {
		return err
	}
	if err := clean(lib.DeleteAlertRule(uid)); err != nil && !missing(err) {
		return err
	}
	return nil
}
