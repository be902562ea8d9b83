package role

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/ddl"
)

// Assess completes the change.
func (r *Role) Assess(ctx context.Context, c *plan.Change) error {
	if c.Want == nil && c.Action != plan.Delete { // there is none
		return nil
	}
	l := r.known.Roles[r.name()]
	if c.Want != nil {
		for _, g := range r.Spec.Grants {
			for _, on := range g.On {
				if r.leftOut(on) {
					c.Note("no grant on %s: it is left out here", r.Queries.AddressOf(on))
				}
			}
		}
	}
	if c.Action == plan.Delete {
		return r.assessDelete(ctx, c, l)
	}
	if c.Action == plan.None {
		return nil
	}
	if p := r.Spec.Password.Reveal(); !plainASCII(p) {
		c.Find(codePasswordNotASCII, ownPassword, "the password has a sign that is not printable ASCII")
		return nil
	}
	if l != nil && (l.Super || len(l.OwnsHere) > 0 || l.Name == r.known.User) {
		c.Find(codeProtectedRole, "", "%s", cmp.Or(whatItIs(l), "it is the user of database.url itself"))
		return nil
	}
	if c.Adopt {
		r.assessAdoption(c, l)
	}
	steps := r.roleSteps(c, l)
	if len(steps) > 0 && !r.known.Super && (!r.known.Creates || l != nil && !l.Mine) {
		c.Find(codeNoCreateRole, "", "%s may not %s roles. %s", r.known.User,
			map[bool]string{true: "make", false: "alter such"}[l == nil], r.remedy(steps))
		return nil
	}
	grants := r.grantSteps(c)
	if l != nil && !c.Impossible() {
		if err := r.try(ctx, c, grants); err != nil {
			return err
		}
	}
	if c.Impossible() {
		return nil
	}
	if l != nil && r.Spec.Login && !l.Connects {
		c.Note("it may not connect to database %s: GRANT CONNECT ON DATABASE %s TO %s", r.known.Database,
			pg.Ident(r.known.Database), pg.Ident(l.Name))
	}
	c.Steps = ddl.Transaction(append(steps, grants...)...)
	return nil
}

func whatItIs(l *catalog.Role) string {
	switch {
	case l.Super:
		return "it is a superuser"
	case len(l.OwnsHere) > 0:
		return "it owns " + strings.Join(l.OwnsHere, ", ")
	}
	return ""
}

// assessAdoption says what it means that a role belongs to the whole server.
func (r *Role) assessAdoption(c *plan.Change, l *catalog.Role) {
	for _, schema := range r.schemas(r.wanted()) {
		if path, _ := l.Setting(searchPath); schema != "public" && schema != l.Name &&
			!strings.Contains(path.Value, schema) {
			c.Note("its search_path does not name schema %s: it finds what is there by its full name only", schema)
		}
	}
	if len(l.Elsewhere) == 0 {
		c.Note("a role belongs to the whole server: what is changed of its login and password counts for " +
			"every database")
		return
	}
	for _, attr := range []string{"login", ownPassword} {
		if _, changed := c.Diff(attr); changed {
			c.Find(codeOtherDatabases, attr, "it has privileges in database %s, too, and its %s counts there as well",
				strings.Join(l.Elsewhere, ", "), attr)
		}
	}
}

// remedy names the statements that the user of database.url may not run.
func (r *Role) remedy(steps []string) string {
	out := make([]string, len(steps))
	for i, s := range steps {
		out[i] = strings.ReplaceAll(s, hiddenSecret, "'…'")
		if strings.HasPrefix(s, "DO ") {
			out[i] = "CREATE ROLE " + pg.Ident(r.Spec.Name)
		}
	}
	return "Let an administrator run " + strings.Join(out, "; ")
}

// roleSteps makes and alters the role itself.
func (r *Role) roleSteps(c *plan.Change, l *catalog.Role) (out []string) {
	name := pg.Ident(r.Spec.Name)
	if l == nil {
		out = append(out, "DO $cryptoviz$ BEGIN CREATE ROLE "+name+
			"; EXCEPTION WHEN duplicate_object THEN NULL; END $cryptoviz$")
	}
	words := ""
	if _, changed := c.Diff("login"); changed {
		words += map[bool]string{true: " LOGIN", false: " NOLOGIN"}[r.Spec.Login]
	}
	if d, changed := c.Diff(ownPassword); changed {
		if d.New == "" {
			words += " PASSWORD NULL"
		} else {
			words += " PASSWORD " + hiddenSecret
		}
	}
	if words != "" {
		out = append(out, "ALTER ROLE "+name+words)
	}
	here := "ALTER ROLE " + name + " IN DATABASE " + pg.Ident(r.known.Database)
	for _, s := range []struct{ attr, setting, value string }{
		{"read_only", readOnly, "on"},
		{patience, patience, pg.Literal(fmt.Sprintf("%dms", r.Spec.Timeout.Milliseconds()))},
		{searchPath, searchPath, ""},
	} {
		d, changed := c.Diff(s.attr)
		if s.attr == searchPath {
			s.value = d.New
		}
		switch {
		case !changed:
		case d.New != "":
			out = append(out, here+" SET "+s.setting+" = "+s.value)
		default:
			for _, x := range l.Settings {
				switch {
				case x.Name != s.setting:
				case x.Here:
					out = append(out, here+" RESET "+s.setting)
				default:
					out = append(out, "ALTER ROLE "+name+" RESET "+s.setting)
				}
			}
		}
	}
	return out
}

// grantSteps gives and takes privileges, relation by relation.
func (r *Role) grantSteps(c *plan.Change) []string {
	give, take := map[string][]string{}, map[string][]string{}
	var order, out, revoked []string
	name := pg.Ident(r.Spec.Name)
	for _, d := range c.Diffs {
		if schema, usage := strings.CutPrefix(d.Name, usageOf); usage {
			if d.New != "" {
				out = append(out, "GRANT USAGE ON SCHEMA "+pg.Ident(schema)+" TO "+name)
			} else {
				out = append(out, "REVOKE USAGE ON SCHEMA "+pg.Ident(schema)+" FROM "+name)
			}
			continue
		}
		word, on, is := strings.Cut(d.Name, " on ")
		if !is {
			continue
		}
		if !slices.Contains(order, on) {
			order = append(order, on)
		}
		if d.New != "" {
			give[on] = append(give[on], strings.ToUpper(word))
			continue
		}
		take[on] = append(take[on], strings.ToUpper(word))
		revoked = append(revoked, d.Name)
	}
	if len(revoked) > 0 {
		c.Find(codePrivilegesRevoked, "", "taken back: %s", strings.Join(revoked, ", "))
	}
	var foreign []string
	for _, on := range order {
		target := r.target(on, &foreign)
		if on == catalog.EngineSchema && len(give[on]) > 0 {
			out = append(out, "GRANT USAGE ON SCHEMA "+catalog.EngineSchema+" TO "+name)
		}
		if words := give[on]; len(words) > 0 {
			out = append(out, "GRANT "+strings.Join(words, ", ")+" ON "+target+" TO "+name)
		}
		if words := take[on]; len(words) > 0 {
			out = append(out, "REVOKE "+strings.Join(words, ", ")+" ON "+target+" FROM "+name)
			if on == catalog.EngineSchema && !slices.ContainsFunc(r.wanted(), func(p privilege) bool {
				return p.on == catalog.EngineSchema
			}) && !slices.Contains(r.schemas(r.wanted()), catalog.EngineSchema) {
				out = append(out, "REVOKE USAGE ON SCHEMA "+catalog.EngineSchema+" FROM "+name)
			}
		}
	}
	if len(foreign) > 0 {
		c.Find(codeNoGrant, "", "%s does not own %s", r.known.User, strings.Join(foreign, ", "))
	}
	return out
}

// target is what stands after ON. foreign collects relations on which the session's user cannot grant.
func (r *Role) target(on string, foreign *[]string) string {
	check := func(key string) {
		if g := r.known.Relations[key]; g != nil && !g.Mine {
			*foreign = append(*foreign, fmt.Sprintf("%s (its owner is %s)", on, g.Owner))
		}
	}
	if on == catalog.EngineSchema {
		var all []string
		for _, name := range catalog.EngineGrants() {
			all = append(all, pg.Ident(catalog.EngineSchema, name))
		}
		check(catalog.EngineSchema + ".meta")
		return strings.Join(all, ", ")
	}
	rel := r.live.Relations[on]
	if rel == nil {
		return pg.Ident(on)
	}
	check(rel.Schema + "." + rel.Name)
	return pg.Ident(rel.Schema, rel.Name)
}

// assessDelete is about a role that goes: it may own nothing, for that would have no owner.
func (r *Role) assessDelete(ctx context.Context, c *plan.Change, l *catalog.Role) error {
	switch {
	case l.Super || l.Name == r.known.User:
		c.Find(codeProtectedRole, "", "%s", cmp.Or(whatItIs(l), "it is the user of database.url itself"))
		return nil
	case len(l.Owns) > 0:
		c.Find(codeRoleOwns, "", "it owns %s", strings.Join(l.Owns, ", "))
		return nil
	case len(l.Elsewhere) > 0:
		c.Find(codeRoleOwns, "", "it has privileges in database %s", strings.Join(l.Elsewhere, ", "))
		return nil
	case !r.known.Super && (!r.known.Creates || !l.Mine):
		c.Find(codeNoCreateRole, "", "%s may not drop it. %s", r.known.User, r.remedy(nil))
		return nil
	}
	name := pg.Ident(l.Name)
	rows, err := r.Queries.Catalog.Query(ctx, `SELECT CASE s.classid
			WHEN 'pg_class'::regclass THEN CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || quote_ident(cn.nspname) || '.' || quote_ident(c.relname)
			WHEN 'pg_namespace'::regclass THEN 'SCHEMA ' || quote_ident(n.nspname)
			WHEN 'pg_database'::regclass THEN 'DATABASE ' || quote_ident(d.datname)
			WHEN 'pg_proc'::regclass THEN 'ROUTINE ' || s.objid::regprocedure::text
			WHEN 'pg_type'::regclass THEN 'TYPE ' || s.objid::regtype::text END,
			pg_describe_object(s.classid, s.objid, 0), coalesce(cn.nspname = '_timescaledb_internal', false)
		FROM pg_shdepend s LEFT JOIN pg_class c ON s.classid = 'pg_class'::regclass AND c.oid = s.objid LEFT JOIN pg_namespace cn ON cn.oid = c.relnamespace
		LEFT JOIN pg_namespace n ON s.classid = 'pg_namespace'::regclass AND n.oid = s.objid LEFT JOIN pg_database d ON s.classid = 'pg_database'::regclass AND d.oid = s.objid
		WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 AND s.deptype = 'a' AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1`, l.OID)
	if err != nil {
		return fmt.Errorf("read the grants of role %s: %w", l.Name, err)
	}
	var steps, blockers []string
	var target *string
	var what string
	var inner bool
	if _, err := pgx.ForEachRow(rows, []any{&target, &what, &inner}, func() error {
		switch {
		case inner: // TimescaleDB takes it back there by itself
		case target == nil:
			blockers = append(blockers, what)
		default:
			steps = append(steps, "REVOKE ALL ON "+*target+" FROM "+name)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read the grants of role %s: %w", l.Name, err)
	}
	if len(blockers) > 0 {
		c.Find(codeRoleOwns, "", "it holds privileges: %s", strings.Join(blockers, ", "))
		return nil
	}
	steps = append(steps, "DROP ROLE "+name)
	if err := r.try(ctx, c, steps); err != nil || c.Impossible() {
		return err
	}
	var sessions int
	if err := r.Queries.Catalog.QueryRow(ctx, "SELECT count(*)::int FROM pg_stat_activity WHERE usename = $1",
		l.Name).Scan(&sessions); err != nil {
		return fmt.Errorf("read the sessions of role %s: %w", l.Name, err)
	}
	var use []string
	if sessions > 0 {
		use = append(use, fmt.Sprintf("%d sessions are open", sessions))
	}
	var others []string
	for _, a := range c.Live.Attrs {
		if _, ours := c.Last.Get(a.Name); !ours && a.Origin == "" && (strings.Contains(a.Name, " on ") ||
			strings.HasPrefix(a.Name, "member of ")) {
			others = append(others, a.Name)
		}
	}
	if len(others) > 0 {
		use = append(use, "others gave it "+strings.Join(others, ", "))
	}
	if len(use) > 0 {
		c.Find(codeRoleInUse, "", "%s", strings.Join(use, "; "))
	}
	c.Steps = ddl.Transaction(steps...)
	return nil
}

// Make carries out the steps. The password's verifier takes the place that the plan left for it.
func (r *Role) Make(ctx context.Context, c plan.Change) error {
	steps, verifier := slices.Clone(c.Steps), ""
	if slices.ContainsFunc(steps, func(s string) bool { return strings.Contains(s, hiddenSecret) }) {
		salt, err := (&ledger.Ledger{DB: r.Queries.Catalog.DB}).Salt(ctx)
		if err != nil {
			return err
		}
		if verifier, err = roleVerifier(r.Spec.Password.Reveal(), r.Spec.Name, salt); err != nil {
			return err
		}
		for i := range steps {
			steps[i] = strings.ReplaceAll(steps[i], hiddenSecret, pg.Literal(verifier))
		}
	}
	c.Steps = steps
	// two roles may be granted on the same schema, and PostgreSQL lets only one grant at a time
	r.Queries.Granting.Lock()
	err := ddl.Apply(ctx, r.Queries.Catalog.RoleDB(), c)
	r.Queries.Granting.Unlock()
	if c.Action == plan.Delete && pg.Code(err) == "42704" { // gone already
		return nil
	}
	if err != nil && verifier != "" {
		return &redacted{err, verifier}
	}
	return err
}

// redacted is an error whose text may quote a statement with a secret.
type redacted struct {
	err    error
	secret string
}

func (h *redacted) Error() string { return strings.ReplaceAll(h.err.Error(), h.secret, "(sensitive)") }

// Is and As go on below; what they find is for branching, not for printing.
func (h *redacted) Is(target error) bool { return errors.Is(h.err, target) }
func (h *redacted) As(target any) bool   { return errors.As(h.err, target) }
