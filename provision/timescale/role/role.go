package role

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// Role is the resource of one role block with its grants, or of a removed block that names a role.
//
// Each privilege on each relation is an attribute of its own: "select on ticks". So one that the last apply gave and
// the block dropped is taken back, and one that was given outside cryptoviz is left alone and listed.
type Role struct {
	Queries *shadow.Queries
	Spec    *spec.Role    // nil: the role is to be deleted
	Removed *spec.Removed // of a role that is to be deleted

	known *catalog.RoleSnapshot // what Read saw, with the next two
	live  *catalog.Snapshot
	views *catalog.ViewSnapshot
	on    []string // of a role that goes: what it has privileges on
}

// Observe reads the role.
func (r *Role) Observe(ctx context.Context) (plan.Observation, error) {
	return plan.Observed(ctx, &Role{Queries: r.Queries, Spec: r.Spec, Removed: r.Removed})
}

func (r *Role) name() string {
	if r.Spec == nil {
		return r.Removed.Name
	}
	return r.Spec.Name
}

// Address is role.NAME.
func (r *Role) Address() string { return "role." + r.name() }

// Where is the place of the block.
func (r *Role) Where() string {
	if r.Spec == nil {
		return spec.Place(r.Removed.Range)
	}
	return spec.Place(r.Spec.Range)
}

// DependsOn lists what is granted on; of a role that goes: what it has privileges on now, known after Read. They are
// taken back before that goes, too.
func (r *Role) DependsOn() []string {
	if r.Spec == nil {
		return r.on
	}
	out := []string{plan.EngineAddress}
	for _, g := range r.Spec.Grants {
		for _, name := range g.On {
			if address := r.Queries.AddressOf(name); address != "" && !slices.Contains(out, address) {
				out = append(out, address)
			}
		}
	}
	return out
}

const (
	granted      = "granted"
	readOnly     = "default_transaction_read_only"
	patience     = "statement_timeout"
	searchPath   = "search_path"
	usageOf      = "usage on schema "
	ownPassword  = "password"
	hiddenSecret = "'(sensitive)'"
)

// Want is the declared state. A password is a hash with the ledger's salt, once Read has it.
func (r *Role) Want() *plan.State {
	if r.Spec == nil {
		return nil
	}
	s := &plan.State{}
	s.Set(plan.Attr{Name: "login", Value: strconv.FormatBool(r.Spec.Login)})
	switch p := r.Spec.Password; {
	case p.Reveal() != "":
		s.Set(plan.Attr{Name: ownPassword, Value: r.wantedHash(), Secret: true})
	case p.Unset() != "" || p.Null():
		s.Set(plan.Attr{Name: ownPassword, Secret: true, Unset: p.Unset()})
	}
	if r.Spec.ReadOnly {
		s.Set(plan.Attr{Name: "read_only", Value: "true"})
	}
	if r.Spec.Timeout > 0 {
		s.Set(plan.Attr{
			Name: patience, Value: units.FormatDuration(r.Spec.Timeout),
			Raw: fmt.Sprintf("%dms", r.Spec.Timeout.Milliseconds()),
		})
	}
	privileges := r.wanted()
	schemas := r.schemas(privileges)
	if path := r.path(schemas); path != "" {
		s.Set(plan.Attr{Name: searchPath, Value: path})
	}
	for _, schema := range schemas {
		s.Set(plan.Attr{Name: usageOf + schema, Value: granted})
	}
	for _, p := range privileges {
		s.Set(plan.Attr{Name: p.String(), Value: granted})
	}
	return s
}

// wantedHash is the hash of the declared password.
func (r *Role) wantedHash() string {
	salt := ""
	if r.known != nil {
		salt = r.known.Salt
	}
	verifier, err := roleVerifier(r.Spec.Password.Reveal(), r.Spec.Name, salt)
	if err != nil {
		return ""
	}
	return passwordHash(verifier)
}

// privilege is one privilege on a relation of the pipeline, or on the engine's own tables.
type privilege struct{ word, on string }

func (p privilege) String() string { return p.word + " on " + p.on }

// wanted lists the declared privileges. On an aggregate that is left out here, and on a view of it, nothing can be
// granted.
func (r *Role) wanted() (out []privilege) {
	for _, g := range r.Spec.Grants {
		for _, on := range g.On {
			if r.leftOut(on) {
				continue
			}
			for _, word := range g.Privileges {
				if p := (privilege{word, on}); !slices.Contains(out, p) {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

func (r *Role) leftOut(name string) bool {
	if r.live == nil || r.live.Relations[name] != nil {
		return false
	}
	aggregate := strings.HasPrefix(r.Queries.AddressOf(name), "aggregate.") && !r.live.Caps.Community() &&
		r.Queries.Pipeline.Database.OnMissing == "degrade"
	return aggregate || r.Queries.LeftOut(name, r.live.Caps) != ""
}

// schemas lists the schemas of relations, the engine's apart: that one goes with its privileges.
func (r *Role) schemas(privileges []privilege) (out []string) {
	for _, p := range privileges {
		if p.on == catalog.EngineSchema {
			continue
		}
		if schema := r.schemaOf(p.on); !slices.Contains(out, schema) {
			out = append(out, schema)
		}
	}
	return out
}

// path is the search_path that a role is made with, so that it finds what it is granted on by its plain name; "" when
// the usual one does, and for a role that is there and that apply did not make.
func (r *Role) path(schemas []string) string {
	if r.known != nil && r.known.Roles[r.Spec.Name] != nil {
		last := r.known.Ledger[r.Address()]
		if _, set := last.Get(searchPath); !set {
			return ""
		}
	}
	if !slices.ContainsFunc(schemas, func(s string) bool { return s != "public" && s != r.Spec.Name }) {
		return ""
	}
	out := make([]string, 0, len(schemas)+1)
	for _, s := range schemas {
		if s != "public" {
			out = append(out, pg.IdentAsNeeded(s))
		}
	}
	return strings.Join(append(out, "public"), ", ")
}

// schemaOf is where a relation is, or will be.
func (r *Role) schemaOf(name string) string {
	switch {
	case r.live != nil && r.live.Relations[name] != nil:
		return r.live.Relations[name].Schema
	case r.views != nil:
		return r.views.Schema
	}
	return "public"
}

// Read is the live role, nil when there is none.
func (r *Role) Read(ctx context.Context) (*plan.State, error) {
	var err error
	if r.live, err = r.Queries.Catalog.Snapshot(ctx); err != nil {
		return nil, err
	}
	if r.views, err = r.Queries.Catalog.Views(ctx); err != nil {
		return nil, err
	}
	if r.known, err = r.Queries.Catalog.Roles(ctx); err != nil {
		return nil, err
	}
	l := r.known.Roles[r.name()]
	if l == nil {
		return nil, nil
	}
	if r.Spec == nil {
		r.on = r.live.GrantedTo(l)
	}
	s := &plan.State{ID: fmt.Sprint(l.OID)}
	s.Set(plan.Attr{Name: "login", Value: strconv.FormatBool(l.Login)})
	if hash := r.liveHash(l); hash != "" {
		s.Set(plan.Attr{Name: ownPassword, Value: hash, Secret: true})
	}
	r.readSettings(s, l)
	r.readGrants(s, l)
	if l.Super {
		s.Set(plan.Attr{Name: "superuser", Value: "true"})
	}
	for _, right := range l.Attributes {
		s.Set(plan.Attr{Name: right, Value: "true"})
	}
	for _, m := range l.Members {
		s.Set(plan.Attr{Name: "member of " + m, Value: "true"})
	}
	return s, nil
}

// liveHash stands for the live password. Only a superuser can read it; for others it is what the last apply set.
func (r *Role) liveHash(l *catalog.Role) string {
	if !r.known.Passwords {
		last, ours := r.known.Ledger[r.Address()]
		if a, set := last.Get(ownPassword); ours && set {
			return a.Value
		}
		if r.Spec != nil && (r.Spec.Password.Null() || r.Spec.Password.Unset() != "") {
			return "unknown"
		}
		return ""
	}
	switch {
	case l.Verifier == "":
		return ""
	case r.Spec != nil && r.Spec.Password.Reveal() != "" && verifies(l.Verifier, r.Spec.Password.Reveal()):
		return r.wantedHash()
	}
	return passwordHash(l.Verifier)
}

func (r *Role) readSettings(s *plan.State, l *catalog.Role) {
	seen := map[string]bool{}
	for _, x := range l.Settings {
		if seen[x.Name] {
			continue
		}
		seen[x.Name] = true
		x, _ = l.Setting(x.Name)
		where := "every database"
		if x.Here {
			where = "this database"
		}
		a := plan.Attr{Name: "setting " + x.Name, Value: x.Value, Raw: where}
		switch x.Name {
		case readOnly:
			a.Name, a.Value = "read_only", strconv.FormatBool(isOn(x.Value))
		case searchPath:
			a.Name = searchPath
		case patience:
			a.Name, a.Raw = patience, x.Value
			if d, ok := settingDuration(x.Value); ok {
				a.Value = units.FormatDuration(d)
			}
		}
		s.Set(a)
	}
}

// isOn reads a boolean setting as PostgreSQL does, of which it keeps the spelling.
func isOn(value string) bool {
	v := strings.ToLower(strings.TrimSpace(value))
	return v == "on" || v == "1" || v != "" && (strings.HasPrefix("true", v) || strings.HasPrefix("yes", v))
}

// settingDuration reads a setting of milliseconds: "30000", "30s", "5 min".
func settingDuration(value string) (time.Duration, bool) {
	text := strings.ReplaceAll(value, " ", "")
	digits := strings.TrimRight(text, "dhinmsu")
	n, err := strconv.ParseFloat(digits, 64)
	unit, known := map[string]time.Duration{
		"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute,
		"h": time.Hour, "d": 24 * time.Hour,
	}[text[len(digits):]]
	return time.Duration(n * float64(unit)), err == nil && known
}

// readGrants writes each privilege as an attribute; what no block can declare, too: it is listed and left alone.
func (r *Role) readGrants(s *plan.State, l *catalog.Role) {
	for _, schema := range slices.Sorted(maps.Keys(r.known.Usage)) {
		has, public := r.known.Uses(schema, l.Name)
		// On the engine's tables it is part of the privilege; a pipeline's relations may be there, too.
		if !has || schema == catalog.EngineSchema && len(l.OnEngine()) > 0 &&
			(r.Spec == nil || !slices.Contains(r.schemas(r.wanted()), schema)) {
			continue
		}
		a := plan.Attr{Name: usageOf + schema, Value: granted}
		if public {
			a.Origin = "PUBLIC"
		}
		s.Set(a)
	}
	for _, g := range l.Grants {
		schema, name, _ := strings.Cut(g.Relation, ".")
		if schema == catalog.EngineSchema && slices.Contains(catalog.EngineGrants(), name) && g.Column == "" &&
			g.Grantor == "" {
			continue
		}
		if rel := r.live.Relations[name]; rel == nil || rel.Schema != schema {
			name = g.Relation
		}
		word := g.Privilege
		if g.Column != "" {
			word += " (" + g.Column + ")"
		}
		attr := word + " on " + name
		if g.Grantor != "" {
			attr += " by " + g.Grantor
		}
		s.Set(plan.Attr{Name: attr, Value: granted})
		if g.Option {
			s.Set(plan.Attr{Name: "grant option of " + attr, Value: granted})
		}
	}
	all := len(catalog.EngineGrants())
	uses, _ := r.known.Uses(catalog.EngineSchema, l.Name)
	on := l.OnEngine()
	for _, word := range slices.Sorted(maps.Keys(on)) {
		n, value := on[word], granted
		switch {
		case n < all:
			value = fmt.Sprintf("granted on %d of %d tables", n, all)
		case !uses:
			value = "granted, without usage of the schema"
		}
		s.Set(plan.Attr{Name: privilege{word, catalog.EngineSchema}.String(), Value: value})
	}
}
