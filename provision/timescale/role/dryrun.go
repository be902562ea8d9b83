package role

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// try runs the statements of a role in a transaction that is rolled back: a privilege that another role gave, or that
// this one passed on, stays whatever the owner takes back, and the server alone knows them all.
func (r *Role) try(ctx context.Context, c *plan.Change, steps []string) error {
	var at string
	r.Queries.Granting.Lock() // as Apply does
	err := r.Queries.Catalog.DryRunRoles(ctx, func(tx pgx.Tx) error {
		for _, sql := range steps {
			at = sql
			if err := pg.ExecSingle(ctx, tx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	r.Queries.Granting.Unlock()
	drops := strings.HasPrefix(at, "DROP ROLE")
	switch state := pg.Code(err); {
	case err == nil:
	case state == "55P03" || state == "57014":
		c.Note("not tried on the server: another session holds a lock on what it has privileges on")
	case state == "25006":
		c.Note("not tried on the server: %s", catalog.ReadOnlyServer)
	case state == "42501" && r.known.ReadOnly:
		c.Note("not tried on the server: %s: %s", at, pg.ServerText(err))
	case c.Action != plan.Delete && pg.NoTable(state): // this plan makes it
	case drops && state == "42501":
		c.Find(codeNoCreateRole, "", "%s: %s", at, pg.ServerText(err))
	case drops && pg.Refuses(state):
		c.Find(codeRoleOwns, "", "%s%s", pg.ServerText(err), r.givenBy(func(grantor, grantee string) bool {
			return grantor == r.name() || grantor != "" && grantee == r.name()
		}))
	case state == "2BP01":
		c.Find(codePassedOn, "", "%s: %s%s", at, pg.ServerText(err), r.givenBy(func(grantor, _ string) bool {
			return grantor == r.name()
		}))
	case state == "42501":
		c.Find(codeNoGrant, "", "%s: %s", at, pg.ServerText(err))
	default:
		return fmt.Errorf("try the change of role %s: %s: %w", r.name(), at, err)
	}
	return nil
}

// givenBy lists the privileges whose giver and taker are meant: "; bob gave ann select on public.ticks".
func (r *Role) givenBy(meant func(grantor, grantee string) bool) string {
	var out []string
	for _, grantee := range slices.Sorted(maps.Keys(r.known.Roles)) {
		for _, g := range r.known.Roles[grantee].Grants {
			if !meant(g.Grantor, grantee) {
				continue
			}
			word := g.Privilege
			if g.Column != "" {
				word += " (" + g.Column + ")"
			}
			out = append(out, fmt.Sprintf("%s gave %s %s on %s", g.Grantor, grantee, word, g.Relation))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "; " + strings.Join(out, ", ")
}
