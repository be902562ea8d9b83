package catalog

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

// RoleSnapshot is what the catalog knows of roles. A role belongs to the whole server, its grants to this database.
type RoleSnapshot struct {
	Database  string
	User      string
	Super     bool // the session's user is a superuser
	Creates   bool // … or has CREATEROLE
	Passwords bool // … or may read them: pg_authid
	ReadOnly  bool // … or plans only: see Capabilities
	Roles     map[string]*Role
	Relations map[string]*grantable // by schema and name, joined by a point
	Usage     map[string][]string   // of a schema: who has it; "" is PUBLIC
	Salt      string
	Ledger    map[string]plan.State
}

// Role is a role as the server has it.
type Role struct {
	OID        uint32
	Name       string
	Super      bool
	Login      bool
	Attributes []string // CREATEDB and the like, which no block declares
	Verifier   string   // of the password; "" for none, or when it cannot be read
	Mine       bool     // the session's user may alter it
	Connects   bool     // it may connect to this database
	Members    []string // the roles that it is a member of
	Settings   []Setting
	Grants     []Grant
	Owns       []string // "12 objects in database x", "database x", anywhere on the server
	OwnsHere   []string // those of them that are of this database
	Elsewhere  []string // other databases in which it has privileges
}

// Setting is a setting of a role.
type Setting struct {
	Name, Value string
	Here        bool // set for this database only
}

// Grant is one privilege on a relation, or on a column of it.
type Grant struct {
	Relation  string // schema and name, joined by a point
	Column    string
	Privilege string // small letters
	Grantor   string // "" for the owner
	Option    bool
}

// grantable is a relation that may be granted on.
type grantable struct {
	schema, name, Owner string
	Mine                bool // the session's user may grant on it
}

// EngineSchema is the schema of the engine's own tables.
const EngineSchema = "cryptoviz"

// EngineGrants are the engine's own tables that a grant on cryptoviz covers: all but the ledger of apply, which holds
// hashes of secrets, and which nothing reads at run time.
func EngineGrants() []string {
	return slices.DeleteFunc(slices.Clone(EngineRelations), func(n string) bool { return n == "managed" })
}

// Roles returns what is known of roles, and reads it the first time.
func (c *Catalog) Roles(ctx context.Context) (*RoleSnapshot, error) {
	return Cached(ctx, c, "roles", c.readRoles)
}

// UnmanagedRoles lists the addresses of all roles that have a privilege on a table, view or aggregate of the database,
// so that the caller takes off what is declared. Superusers and owners are none, and neither is the reader of cryptoviz
// up.
func (c *Catalog) UnmanagedRoles(ctx context.Context) ([]string, error) {
	r, err := c.Roles(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for name, l := range r.Roles {
		if len(l.Grants) > 0 && !l.Super && len(l.OwnsHere) == 0 && name != r.User && name != "cryptoviz_reader" {
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
func (c *Catalog) readRoles(ctx context.Context) (*RoleSnapshot, error) {
	r := &RoleSnapshot{Roles: map[string]*Role{}, Relations: map[string]*grantable{}, Usage: map[string][]string{}}
	err := c.DryRunRoles(ctx, func(tx pgx.Tx) error {
		if err := pg.PlainText(ctx, tx); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, selfSQL).Scan(&r.Database, &r.User, &r.Super, &r.Creates, &r.Passwords); err != nil {
			return err
		}
		var b pgx.Batch
		b.Queue(rolesSQL).Query(r.scanRoles)
		b.Queue(roleSettingsSQL).Query(r.scanSettings)
		b.Queue(grantsSQL).Query(r.scanGrants)
		b.Queue(usageSQL).Query(r.scanUsage)
		b.Queue(ownsSQL).Query(r.scanOwned)
		if r.Passwords {
			b.Queue(verifiersSQL).Query(r.scanVerifiers)
		}
		c.Count()
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("read the server's roles: %w", err)
	}
	for _, l := range r.Roles {
		slices.SortFunc(l.Grants, func(a, b Grant) int {
			return cmp.Or(cmp.Compare(a.Relation, b.Relation), cmp.Compare(a.Column, b.Column),
				cmp.Compare(a.Privilege, b.Privilege), cmp.Compare(a.Grantor, b.Grantor))
		})
	}
	caps, err := c.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	if r.ReadOnly = caps.ReadOnly != ""; r.ReadOnly { // apply is another user's: what this one may not do says nothing
		r.Creates = true
		for _, l := range r.Roles {
			l.Mine = true
		}
		for _, g := range r.Relations {
			g.Mine = true
		}
	}
	if r.Ledger, err = c.Managed(ctx); err != nil {
		return nil, err
	}
	c.Count()
	r.Salt, err = (&ledger.Ledger{DB: c.DB}).Salt(ctx)
	return r, err
}

func (r *RoleSnapshot) scanRoles(rows pgx.Rows) error {
	var l Role
	_, err := pgx.ForEachRow(rows, []any{
		&l.OID, &l.Name, &l.Super, &l.Login, &l.Attributes, &l.Mine, &l.Connects,
		&l.Members,
	}, func() error {
		one := l
		r.Roles[l.Name] = &one
		return nil
	})
	return err
}

// scanSettings keeps what counts: a setting for this database goes before one for all of them.
func (r *RoleSnapshot) scanSettings(rows pgx.Rows) error {
	var role string
	var s Setting
	_, err := pgx.ForEachRow(rows, []any{&role, &s.Name, &s.Value, &s.Here}, func() error {
		if l := r.Roles[role]; l != nil {
			l.Settings = append(l.Settings, s)
		}
		return nil
	})
	return err
}

// Setting returns what counts of a setting: the one for this database, else the one for all.
func (l *Role) Setting(name string) (Setting, bool) {
	for _, s := range slices.Backward(l.Settings) {
		if s.Name == name {
			return s, true
		}
	}
	return Setting{}, false
}

func (r *RoleSnapshot) scanGrants(rows pgx.Rows) error {
	var g grantable
	var role string
	var p Grant
	_, err := pgx.ForEachRow(rows, []any{
		&g.schema, &g.name, &g.Owner, &g.Mine, &role, &p.Column, &p.Privilege,
		&p.Grantor, &p.Option,
	}, func() error {
		key := g.schema + "." + g.name
		if role == "" {
			one := g
			r.Relations[key] = &one
			return nil
		}
		if l := r.Roles[role]; l != nil {
			one := p
			one.Relation = key
			l.Grants = append(l.Grants, one)
		}
		return nil
	})
	return err
}

func (r *RoleSnapshot) scanUsage(rows pgx.Rows) error {
	var schema, role string
	_, err := pgx.ForEachRow(rows, []any{&schema, &role}, func() error {
		r.Usage[schema] = append(r.Usage[schema], role)
		return nil
	})
	return err
}

func (r *RoleSnapshot) scanOwned(rows pgx.Rows) error {
	var role, kind, database, owned string
	var n int
	_, err := pgx.ForEachRow(rows, []any{&role, &kind, &database, &n, &owned}, func() error {
		l := r.Roles[role]
		own := func(what string, here bool) {
			if l.Owns = append(l.Owns, what); here {
				l.OwnsHere = append(l.OwnsHere, what)
			}
		}
		switch {
		case l == nil:
		case kind == "o" && owned != "":
			own("database "+owned, owned == r.Database)
		case kind == "o" && database == "":
			own(fmt.Sprintf("%d objects of the server", n), false)
		case kind == "o":
			own(fmt.Sprintf("%d objects in database %s", n, database), database == r.Database)
		case database != "" && database != r.Database:
			l.Elsewhere = append(l.Elsewhere, database)
		case owned != "" && owned != r.Database:
			l.Elsewhere = append(l.Elsewhere, owned)
		}
		return nil
	})
	return err
}

func (r *RoleSnapshot) scanVerifiers(rows pgx.Rows) error {
	var role, verifier string
	_, err := pgx.ForEachRow(rows, []any{&role, &verifier}, func() error {
		if l := r.Roles[role]; l != nil {
			l.Verifier = verifier
		}
		return nil
	})
	return err
}

// has lists the privileges of a role on a relation that its owner gave.
func (l *Role) has(relation string) map[string]bool {
	out := map[string]bool{}
	for _, g := range l.Grants {
		if g.Relation == relation && g.Column == "" && g.Grantor == "" {
			out[g.Privilege] = true
		}
	}
	return out
}

// OnEngine counts the engine's tables on which a role has each privilege.
func (l *Role) OnEngine() map[string]int {
	out := map[string]int{}
	for _, name := range EngineGrants() {
		for p := range l.has(EngineSchema + "." + name) {
			out[p]++
		}
	}
	return out
}

// Uses tells whether a role has USAGE of a schema, and whether only as part of PUBLIC.
func (r *RoleSnapshot) Uses(schema, role string) (has, public bool) {
	if slices.Contains(r.Usage[schema], role) {
		return true, false
	}
	public = slices.Contains(r.Usage[schema], "")
	return public, public
}
