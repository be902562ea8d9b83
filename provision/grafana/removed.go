package grafana

import (
	"cmp"
	"context"
	"fmt"

	"github.com/cryptoviz/cryptoviz/engine/jsonvalue"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// Removed is the resource of a removed block for something in Grafana.
type Removed struct {
	Spec *spec.Removed
	Org  *Org
	Last plan.State // what the last apply set: it has the uid, which a file or a block may have chosen
}

// Address is the object's own.
func (r *Removed) Address() string { return r.Spec.Address() }

// Where is the block's place in pipeline.hcl.
func (r *Removed) Where() string { return where(r.Spec.Range) }

// uid finds out which object is meant: the one that the last apply set, else the one that the name makes.
func (r *Removed) uid() string {
	if uid, known := r.Last.Get("uid"); known {
		return uid.Value
	}
	return uidOf(r.Spec.Name)
}

// Observe reads the object.
func (r *Removed) Observe(ctx context.Context) (plan.Observation, error) {
	uid := r.uid()
	live, err := r.Org.object(ctx, r.Spec.Kind, uid)
	return plan.Observation{Live: live, Assess: func(ctx context.Context, c *plan.Change) error {
		return r.assess(ctx, uid, c)
	}}, err
}

// object reads any object, declared or not.
func (o *Org) object(ctx context.Context, kind, uid string) (*plan.State, error) {
	s, err := o.load(ctx)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "folder":
		live, err := o.folder(ctx, s, uid)
		return o.folderState(live), err
	case "datasource":
		live, err := o.source(ctx, s, uid)
		return live.state(), err
	case "dashboard":
		live, err := o.board(ctx, s, uid)
		if err != nil || live == nil {
			return nil, err
		}
		return stateOf(live.model, uid, o.folderName(live.meta.FolderUID), live.model), nil
	case "alert":
		if err := o.listRules(ctx, s); err != nil {
			return nil, err
		}
		live, err := o.rule(ctx, s, uid)
		return o.ruleState(live, nil), err
	}
	return nil, fmt.Errorf("a %s is no object of Grafana", kind)
}

// listRules reads the alert rules, where no alert block has made it necessary.
func (o *Org) listRules(ctx context.Context, s *snapshot) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.ruleList == nil && s.rulesErr == nil {
		s.ruleList, s.rulesErr = o.client.rules(ctx)
	}
	return s.rulesErr
}

// remove deletes the object; one that is gone already is no error.
func (r *Removed) remove(ctx context.Context, uid string) error {
	s, err := r.Org.load(ctx)
	if err != nil {
		return err
	}
	switch r.Spec.Kind {
	case "datasource":
		defer s.sources.forget(uid)
		return r.Org.removeSource(ctx, uid)
	case "dashboard":
		defer s.boards.forget(uid)
		return r.Org.removeBoard(ctx, uid)
	default:
		defer s.rules.forget(uid)
		return r.Org.removeRule(ctx, s, uid)
	}
}

// assess finds what goes with the object of a uid.
func (r *Removed) assess(ctx context.Context, uid string, c *plan.Change) error {
	if c.Action != plan.Delete {
		return nil
	}
	c.Do = func(ctx context.Context, _ plan.Change) error { return r.remove(ctx, uid) }
	o := r.Org
	s, err := o.load(ctx)
	if err != nil {
		return err
	}
	s.foresee(c)
	switch r.Spec.Kind {
	case "folder":
		return o.assessFolder(ctx, uid, c)
	case "datasource":
		live, err := o.source(ctx, s, uid)
		if err != nil || live == nil {
			return err
		}
		if live.ReadOnly {
			c.Find(codeProvisioned, "", "%s is provisioned from a file on Grafana's server, and read-only", c.Address)
			return nil
		}
		c.Find(codeSourceDeleted, "", "what reads the data source %s fails from then on", uid)
		c.Steps = []string{"DELETE /api/datasources/uid/" + uid}
	case "dashboard":
		return o.removableBoard(ctx, s, uid, c)
	case "alert":
		live, err := o.rule(ctx, s, uid)
		if err != nil || live == nil {
			return err
		}
		if p := jsonvalue.Text(live.body["provenance"]); p != "" && p != "api" {
			c.Find(codeProvisioned, "", "%s is provisioned by another way (%s) than this API", c.Address, p)
			return nil
		}
		c.Find(codeRuleDeleted, "", "notifications stop")
		c.Steps = []string{"DELETE /api/v1/provisioning/alert-rules/" + uid}
	}
	return nil
}

// removableBoard separates a dashboard that is as we saved it from one with the work of other people.
func (o *Org) removableBoard(ctx context.Context, s *snapshot, uid string, c *plan.Change) error {
	live, err := o.board(ctx, s, uid)
	if err != nil || live == nil {
		return err
	}
	if live.meta.provisioned() {
		c.Find(codeProvisioned, "", "%s is provisioned from %s on Grafana's server: it cannot be deleted", c.Address,
			cmp.Or(live.meta.External, "a file"))
		return nil
	}
	c.Steps = []string{fmt.Sprintf("DELETE /api/dashboards/uid/%s (version %d)", uid, live.meta.Version)}
	versions, err := o.client.history(ctx, uid)
	if noAccess(err) != nil {
		return err
	}
	j := assessment{c: c, live: live}
	if j.savedByUs(versions) {
		c.Find(codeDashboardDeleted, "", "its links and its history go with it")
		return nil
	}
	f := c.Find(codeEditsLost, "", "it is not as the last apply saved it: %s", j.who(versions))
	f.Loss = &plan.Loss{Unit: plan.Objects, Count: 1, Known: true, When: "at once"}
	return nil
}
