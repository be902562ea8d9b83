package provision

import (
	"context"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/dashboard"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// checkQueries has the server read the SQL of rollups, dashboards and alerts against what the plan will make. What it
// rejects becomes a finding of the rollup, dashboard or alert: so a dropped column names the panels that read it.
func (b *baseline) checkQueries(ctx context.Context, p *plan.Plan) error {
	var changed []string
	for _, c := range p.Changes {
		if c.Action == plan.Create || c.Action == plan.Update || c.Action == plan.Replace {
			changed = append(changed, c.Address)
		}
	}
	checks := b.checks(p)
	if err := b.queries.Check(ctx, changed, checks); err != nil {
		return err
	}
	for _, c := range checks {
		switch {
		case c.Rejected != "":
			b.rejected(p, c)
		case c.Unchecked:
			for i := range p.Changes {
				if p.Changes[i].Address == c.Address {
					p.Changes[i].Note("%s: not checked, since another session holds a lock on what it reads, or the "+
						"server is slow", c.What)
				}
			}
		}
	}
	return nil
}

// checks lists the SQL of the plan's rollups, dashboards and alerts.
func (b *baseline) checks(p *plan.Plan) (out []*shadow.Check) {
	for _, r := range b.pipeline.Rollups {
		out = append(out, &shadow.Check{
			Address: "rollup." + r.Name, What: r.QueryAt,
			SQL: strings.TrimSuffix(strings.TrimSpace(r.Query), ";"),
		})
	}
	if b.org == nil {
		return out
	}
	declared := func(address string) bool {
		return slices.ContainsFunc(p.Changes, func(c plan.Change) bool { return c.Address == address && c.Want != nil })
	}
	for _, d := range b.pipeline.Dashboards {
		address := "dashboard." + d.Name
		list, err := dashboard.SQL(d)
		if err != nil || !declared(address) {
			continue
		}
		for _, q := range list {
			if q.Problem == "" {
				out = append(out, &shadow.Check{Address: address, What: q.Panel, SQL: q.SQL})
			}
		}
	}
	for _, a := range b.pipeline.Alerts {
		if q := dashboard.AlertSQL(a); q.Problem == "" && declared("alert."+a.Name) {
			out = append(out, &shadow.Check{Address: "alert." + a.Name, What: a.QueryAt, SQL: q.SQL})
		}
	}
	return out
}

// rejected adds the finding that the server rejects SQL.
func (b *baseline) rejected(p *plan.Plan, check *shadow.Check) {
	for i := range p.Changes {
		if p.Changes[i].Address == check.Address {
			p.Changes[i].Find(codePanelRejected, "", "%s: %s", check.What, check.Rejected)
			return
		}
	}
	c := plan.Change{Address: check.Address, Action: plan.None}
	for _, r := range b.pipeline.Rollups {
		if check.Address == "rollup."+r.Name {
			c.Where = spec.Place(r.Range)
		}
	}
	c.Find(codeRollupRejected, "", "%s: %s", check.What, check.Rejected)
	p.Changes = append(p.Changes, c)
}
