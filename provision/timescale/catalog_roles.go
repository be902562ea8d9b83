package timescale

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/ledger"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// roleSnapshot is what the catalog knows of roles. A role belongs to the whole server, its grants to this database.
type roleSnapshot struct {
	database  string
	user      string
	super     bool // the session's user is a superuser
	creates   bool // … or has CREATEROLE
	passwords bool // … or may read them: pg_authid
	readOnly  bool // … or plans only: see Capabilities
	roles     map[string]*liveRole
	relations map[string]*grantable // by schema and name, joined by a point
	usage     map[string][]string   // of a schema: who has it; "" is PUBLIC
	salt      string
	ledger    map[string]plan.State
}

// liveRole is a role as the server has it.
type liveRole struct {
	oid       uint32
	name      string
	super     bool
	login     bool
	rights    []string // CREATEDB and the like, which no block declares
	verifier  string   // of the password; "" for none, or when it cannot be read
	mine      bool     // the session's user may alter it
	connects  bool     // it may connect to this database
	members   []string // the roles that it is a member of
	settings  []roleSetting
	grants    []liveGrant
	owns      []string // "12 objects in database x", "database x", anywhere on the server
	ownsHere  []string // those of them that are of this database
	elsewhere []string // other databases in which it has privileges
}

type roleSetting struct {
	name, value string
	here        bool // set for this database only
}

// liveGrant is one privilege on a relation, or on a column of it.
type liveGrant struct {
	relation  string // schema and name, joined by a point
	column    string
	privilege string // small letters
	grantor   string // "" for the owner
	option    bool
}

// grantable is a relation that may be granted on.
type grantable struct {
	schema, name, owner string
	mine                bool // the session's user may grant on it
}

// engineSchema is the schema of the engine's own tables.
const engineSchema = "cryptoviz"

// engineGrants are the engine's own tables that a grant on cryptoviz covers: all but the ledger of apply, which holds hashes of
// secrets and is nobody's business at run time.
func engineGrants() []string {
	return slices.DeleteFunc(slices.Clone(engineRelations), func(n string) bool { return n == "managed" })
}

// roles returns what is known of roles, and reads it the first time.
func (c *Catalog) roles(ctx context.Context) (*roleSnapshot, error) {
	return cached(ctx, c, "roles", c.readRoles)
}

// UnmanagedRoles lists the addresses of all roles that have a privilege on a table, view or aggregate of the database, so that
// the caller takes off what is declared. Superusers and owners are none, and neither is the reader of cryptoviz up.
func (c *Catalog) UnmanagedRoles(ctx context.Context) ([]string, error) {
	r, err := c.roles(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for name, l := range r.roles {
		if len(l.grants) > 0 && !l.super && len(l.ownsHere) == 0 && name != r.user && name != "cryptoviz_reader" {
			out = append(out, "role."+name)
		}
	}
	slices.Sort(out)
	return out, nil
}

const (
	selfSQL = `SELECT current_database()::text, current_user::text, r.rolsuper, r.rolcreaterole, has_table_privilege('pg_authid', 'SELECT') FROM pg_roles r WHERE r.rolname = current_user`

	rolesSQL = `SELECT r.oid, r.rolname::text, r.rolsuper, r.rolcanlogin, array_remove(ARRAY[CASE WHEN r.rolcreatedb THEN 'createdb' END, CASE WHEN r.rolcreaterole THEN 'createrole' END,
		CASE WHEN r.rolreplication THEN 'replication' END, CASE WHEN r.rolbypassrls THEN 'bypassrls' END, CASE WHEN r.rolconnlimit >= 0 THEN 'connection limit ' || r.rolconnlimit END,
		CASE WHEN isfinite(r.rolvaliduntil) THEN 'valid until ' || r.rolvaliduntil END], NULL),
		me.rolsuper OR me.rolcreaterole AND NOT r.rolsuper AND (current_setting('server_version_num')::int < 160000 OR pg_has_role(me.oid, r.oid, 'MEMBER WITH ADMIN OPTION')),
		has_database_privilege(r.oid, current_database(), 'CONNECT'),
		coalesce((SELECT array_agg(g.rolname::text ORDER BY g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid), '{}')
		FROM pg_roles r, pg_roles me WHERE me.rolname = current_user AND r.rolname !~ '^pg_'`

	roleSettingsSQL = `SELECT r.rolname::text, split_part(x, '=', 1), substr(x, strpos(x, '=') + 1), s.setdatabase <> 0 FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) x
		WHERE s.setdatabase = 0 OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1, 2, 4`

	// TimescaleDB passes grants on to chunks and inner tables by itself, PostgreSQL checks a partition's parent only.
	grantsSQL = `WITH relation AS (SELECT c.oid, n.nspname, c.relname, c.relowner, c.relacl FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname <> 'information_schema' AND n.nspname !~ '^(pg_|_?timescaledb)')
		SELECT r.nspname::text, r.relname::text, pg_get_userbyid(r.relowner)::text, pg_has_role(current_user, r.relowner, 'USAGE'), '', '', '', '', false FROM relation r
		UNION ALL SELECT r.nspname::text, r.relname::text, '', false, pg_get_userbyid(x.grantee)::text, '', lower(x.privilege_type), CASE WHEN x.grantor = r.relowner THEN '' ELSE pg_get_userbyid(x.grantor)::text END, x.is_grantable
		FROM relation r, aclexplode(r.relacl) x WHERE x.grantee <> 0 AND x.grantee <> r.relowner
		UNION ALL SELECT r.nspname::text, r.relname::text, '', false, pg_get_userbyid(x.grantee)::text, a.attname::text, lower(x.privilege_type), CASE WHEN x.grantor = r.relowner THEN '' ELSE pg_get_userbyid(x.grantor)::text END, x.is_grantable
		FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attacl IS NOT NULL, aclexplode(a.attacl) x WHERE x.grantee <> 0 AND x.grantee <> r.relowner`

	usageSQL = `SELECT n.nspname::text, CASE WHEN x.grantee = 0 THEN '' ELSE pg_get_userbyid(x.grantee)::text END FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x
		WHERE x.privilege_type = 'USAGE' AND n.nspname <> 'information_schema' AND n.nspname !~ '^(pg_|_?timescaledb)'`

	ownsSQL = `SELECT r.rolname::text, s.deptype::text, coalesce(d.datname::text, ''), count(*)::int,
		coalesce(b.datname::text, '') FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid LEFT JOIN pg_database d ON d.oid = s.dbid LEFT JOIN pg_database b ON s.classid = 'pg_database'::regclass AND b.oid = s.objid
		WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype IN ('o', 'a') AND r.rolname !~ '^pg_' GROUP BY 1, 2, 3, 5 ORDER BY 1, 3`

	verifiersSQL = `SELECT rolname::text, coalesce(rolpassword, '') FROM pg_authid WHERE rolname !~ '^pg_'`
)

// readRoles reads everything about roles in one transaction with a few requests.
func (c *Catalog) readRoles(ctx context.Context) (*roleSnapshot, error) {
	r := &roleSnapshot{roles: map[string]*liveRole{}, relations: map[string]*grantable{}, usage: map[string][]string{}}
	err := c.trialOfRoles(ctx, func(tx pgx.Tx) error {
		if err := pg.PlainText(ctx, tx); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, selfSQL).Scan(&r.database, &r.user, &r.super, &r.creates, &r.passwords); err != nil {
			return err
		}
		var b pgx.Batch
		b.Queue(rolesSQL).Query(r.scanRoles)
		b.Queue(roleSettingsSQL).Query(r.scanSettings)
		b.Queue(grantsSQL).Query(r.scanGrants)
		b.Queue(usageSQL).Query(r.scanUsage)
		b.Queue(ownsSQL).Query(r.scanOwned)
		if r.passwords {
			b.Queue(verifiersSQL).Query(r.scanVerifiers)
		}
		c.count()
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("read the server's roles: %w", err)
	}
	for _, l := range r.roles {
		slices.SortFunc(l.grants, func(a, b liveGrant) int {
			return cmp.Or(cmp.Compare(a.relation, b.relation), cmp.Compare(a.column, b.column), cmp.Compare(a.privilege, b.privilege), cmp.Compare(a.grantor, b.grantor))
		})
	}
	caps, err := c.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	if r.readOnly = caps.ReadOnly != ""; r.readOnly { // apply is another user's: what this one may not do says nothing
		r.creates = true
		for _, l := range r.roles {
			l.mine = true
		}
		for _, g := range r.relations {
			g.mine = true
		}
	}
	if r.ledger, err = c.managed(ctx); err != nil {
		return nil, err
	}
	c.count()
	r.salt, err = (&ledger.Ledger{DB: c.DB}).Salt(ctx)
	return r, err
}

func (r *roleSnapshot) scanRoles(rows pgx.Rows) error {
	var l liveRole
	_, err := pgx.ForEachRow(rows, []any{&l.oid, &l.name, &l.super, &l.login, &l.rights, &l.mine, &l.connects, &l.members}, func() error {
		one := l
		r.roles[l.name] = &one
		return nil
	})
	return err
}

// scanSettings keeps what counts: a setting for this database goes before one for all of them.
func (r *roleSnapshot) scanSettings(rows pgx.Rows) error {
	var role string
	var s roleSetting
	_, err := pgx.ForEachRow(rows, []any{&role, &s.name, &s.value, &s.here}, func() error {
		if l := r.roles[role]; l != nil {
			l.settings = append(l.settings, s)
		}
		return nil
	})
	return err
}

// setting returns what counts of a setting: the one for this database, else the one for all.
func (l *liveRole) setting(name string) (roleSetting, bool) {
	for _, s := range slices.Backward(l.settings) {
		if s.name == name {
			return s, true
		}
	}
	return roleSetting{}, false
}

func (r *roleSnapshot) scanGrants(rows pgx.Rows) error {
	var g grantable
	var role string
	var p liveGrant
	_, err := pgx.ForEachRow(rows, []any{&g.schema, &g.name, &g.owner, &g.mine, &role, &p.column, &p.privilege, &p.grantor, &p.option}, func() error {
		key := g.schema + "." + g.name
		if role == "" {
			one := g
			r.relations[key] = &one
			return nil
		}
		if l := r.roles[role]; l != nil {
			one := p
			one.relation = key
			l.grants = append(l.grants, one)
		}
		return nil
	})
	return err
}

func (r *roleSnapshot) scanUsage(rows pgx.Rows) error {
	var schema, role string
	_, err := pgx.ForEachRow(rows, []any{&schema, &role}, func() error {
		r.usage[schema] = append(r.usage[schema], role)
		return nil
	})
	return err
}

func (r *roleSnapshot) scanOwned(rows pgx.Rows) error {
	var role, kind, database, owned string
	var n int
	_, err := pgx.ForEachRow(rows, []any{&role, &kind, &database, &n, &owned}, func() error {
		l := r.roles[role]
		own := func(what string, here bool) {
			if l.owns = append(l.owns, what); here {
				l.ownsHere = append(l.ownsHere, what)
			}
		}
		switch {
		case l == nil:
		case kind == "o" && owned != "":
			own("database "+owned, owned == r.database)
		case kind == "o" && database == "":
			own(fmt.Sprintf("%d objects of the server", n), false)
		case kind == "o":
			own(fmt.Sprintf("%d objects in database %s", n, database), database == r.database)
		case database != "" && database != r.database:
			l.elsewhere = append(l.elsewhere, database)
		case owned != "" && owned != r.database:
			l.elsewhere = append(l.elsewhere, owned)
		}
		return nil
	})
	return err
}

func (r *roleSnapshot) scanVerifiers(rows pgx.Rows) error {
	var role, verifier string
	_, err := pgx.ForEachRow(rows, []any{&role, &verifier}, func() error {
		if l := r.roles[role]; l != nil {
			l.verifier = verifier
		}
		return nil
	})
	return err
}

// has lists the privileges of a role on a relation that its owner gave.
func (l *liveRole) has(relation string) map[string]bool {
	out := map[string]bool{}
	for _, g := range l.grants {
		if g.relation == relation && g.column == "" && g.grantor == "" {
			out[g.privilege] = true
		}
	}
	return out
}

// onEngine counts the engine's tables on which a role has each privilege.
func (l *liveRole) onEngine() map[string]int {
	out := map[string]int{}
	for _, name := range engineGrants() {
		for p := range l.has(engineSchema + "." + name) {
			out[p]++
		}
	}
	return out
}

// uses tells whether a role has USAGE of a schema, and whether only as part of PUBLIC.
func (r *roleSnapshot) uses(schema, role string) (has, public bool) {
	if slices.Contains(r.usage[schema], role) {
		return true, false
	}
	public = slices.Contains(r.usage[schema], "")
	return public, public
}
