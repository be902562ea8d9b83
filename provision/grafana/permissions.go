package grafana

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// rights are the actions that the credentials may do, each with its scopes; nil when the answer is of another kind
// than expected.
func (c *Client) rights(ctx context.Context) (map[string][]string, error) {
	var out map[string][]string
	err := c.call(ctx, http.MethodGet, []string{"api", "access-control", "user", "permissions"}, nil, nil, &out)
	switch {
	case status(err) != 0: // it answers, and does not say: then the answer to a write has to do
		return nil, nil
	case err != nil || out["folders:read"] == nil && out["dashboards:read"] == nil:
		return nil, err
	}
	return out, nil
}

// foresee finds a change that Grafana would refuse: the credentials may read all, and lack the action that it takes.
func (s *snapshot) foresee(c *plan.Change) {
	verb := map[plan.Action]string{plan.Create: "create", plan.Update: "write", plan.Delete: "delete"}[c.Action]
	if verb == "" || s.rights == nil {
		return
	}
	role := "Editor"
	var accepted []string
	switch c.Kind() {
	case "datasource":
		accepted, role = []string{"datasources:" + verb}, "Admin"
	case "alert":
		accepted = []string{"alert.rules:" + verb, "alert.provisioning:write", "alert.rules.provisioning:write"}
	default:
		accepted = []string{c.Kind() + "s:" + verb}
	}
	if !slices.ContainsFunc(accepted, func(action string) bool { return s.rights[action] != nil }) {
		c.Find(codeNoPermission, "", "grafana.auth lacks the permission %s, which the role %s has",
			strings.Join(accepted, " or "), role)
	}
}
