package timescale

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
)

// Role is the resource of one role block with its grants, or of a removed block that names a role.
//
// Each privilege on each relation is an attribute of its own: "select on ticks". So one that the last apply gave and the block
// dropped is taken back, and one that somebody else gave is left alone and listed.
type Role struct {
	Queries *Queries
	Spec    *spec.Role    // nil: the role shall be deleted
	Removed *spec.Removed // of a role that shall be deleted

	known *roleSnapshot // what Read saw, with the next two
	live  *snapshot
	views *viewSnapshot
	on    []string // of a role that goes: what it has privileges on
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
		return place(r.Removed.Range)
	}
	return place(r.Spec.Range)
}

// DependsOn lists what is granted on; of a role that goes: what it has privileges on now, known after Read. They are taken
// back before that goes, too.
func (r *Role) DependsOn() []string {
	if r.Spec == nil {
		return r.on
	}
	out := []string{plan.EngineAddress}
	for _, g := range r.Spec.Grants {
		for _, name := range g.On {
			if address := r.Queries.addressOf(name); address != "" && !slices.Contains(out, address) {
				out = append(out, address)
			}
		}
	}
	return out
}

// addressOf returns the address of a declared relation.
func (q *Queries) addressOf(name string) string {
	p := q.Pipeline
	switch {
	case slices.ContainsFunc(p.Tables, func(t *spec.Table) bool { return t.Name == name }):
		return "table." + name
	case slices.ContainsFunc(p.Views, func(v *spec.View) bool { return v.Name == name }):
		return "view." + name
	case slices.ContainsFunc(p.Aggregates, func(a *spec.Aggregate) bool { return a.Name == name }):
		return "aggregate." + name
	}
	return ""
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
		s.Set(plan.Attr{Name: patience, Value: units.FormatDuration(r.Spec.Timeout), Raw: fmt.Sprintf("%dms", r.Spec.Timeout.Milliseconds())})
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
		salt = r.known.salt
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

// wanted lists the declared privileges. On an aggregate that is left out here, and on a view of it, nothing can be granted.
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
	if r.live == nil || r.live.relations[name] != nil {
		return false
	}
	aggregate := strings.HasPrefix(r.Queries.addressOf(name), "aggregate.") && !r.live.caps.Community() && r.Queries.Pipeline.Database.OnMissing == "degrade"
	return aggregate || r.Queries.leftOut(name, r.live.caps) != ""
}

// schemas lists the schemas of relations, the engine's apart: that one goes with its privileges.
func (r *Role) schemas(privileges []privilege) (out []string) {
	for _, p := range privileges {
		if p.on == engineSchema {
			continue
		}
		if schema := r.schemaOf(p.on); !slices.Contains(out, schema) {
			out = append(out, schema)
		}
	}
	return out
}

// path is the search_path that a role is made with, so that it finds what it is granted on by its plain name; "" when the usual
// one does, and for a role that is there and that apply did not make.
func (r *Role) path(schemas []string) string {
	if r.known != nil && r.known.roles[r.Spec.Name] != nil {
		last := r.known.ledger[r.Address()]
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
	case r.live != nil && r.live.relations[name] != nil:
		return r.live.relations[name].schema
	case r.views != nil:
		return r.views.schema
	}
	return "public"
}

// Read is the live role, nil when there is none.
func (r *Role) Read(ctx context.Context) (*plan.State, error) {
	var err error
	if r.live, err = r.Queries.Catalog.load(ctx); err != nil {
		return nil, err
	}
	if r.views, err = r.Queries.Catalog.views(ctx); err != nil {
		return nil, err
	}
	if r.known, err = r.Queries.Catalog.roles(ctx); err != nil {
		return nil, err
	}
	l := r.known.roles[r.name()]
	if l == nil {
		return nil, nil
	}
	if r.Spec == nil {
		r.on = r.live.grantedTo(l)
	}
	s := &plan.State{ID: fmt.Sprint(l.oid)}
	s.Set(plan.Attr{Name: "login", Value: strconv.FormatBool(l.login)})
	if hash := r.liveHash(l); hash != "" {
		s.Set(plan.Attr{Name: ownPassword, Value: hash, Secret: true})
	}
	r.readSettings(s, l)
	r.readGrants(s, l)
	if l.super {
		s.Set(plan.Attr{Name: "superuser", Value: "true"})
	}
	for _, right := range l.rights {
		s.Set(plan.Attr{Name: right, Value: "true"})
	}
	for _, m := range l.members {
		s.Set(plan.Attr{Name: "member of " + m, Value: "true"})
	}
	return s, nil
}

// grantedTo lists the addresses of the relations that a role has privileges on.
func (s *snapshot) grantedTo(l *liveRole) (out []string) {
	for _, g := range l.grants {
		schema, name, _ := strings.Cut(g.relation, ".")
		if rel := s.relations[name]; rel != nil && rel.schema == schema {
			out = append(out, s.addressOf(rel))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// addressOf is how pipeline.hcl names a live relation.
func (s *snapshot) addressOf(r *relation) string {
	switch {
	case s.aggregates[r.name] != nil:
		return "aggregate." + r.name
	case r.kind == "v":
		return "view." + r.name
	}
	return "table." + r.name
}

// liveHash stands for the live password. Only a superuser can read it; for others it is what the last apply set.
func (r *Role) liveHash(l *liveRole) string {
	if !r.known.passwords {
		last, ours := r.known.ledger[r.Address()]
		if a, set := last.Get(ownPassword); ours && set {
			return a.Value
		}
		if r.Spec != nil && (r.Spec.Password.Null() || r.Spec.Password.Unset() != "") {
			return "unknown"
		}
		return ""
	}
	switch {
	case l.verifier == "":
		return ""
	case r.Spec != nil && r.Spec.Password.Reveal() != "" && verifies(l.verifier, r.Spec.Password.Reveal()):
		return r.wantedHash()
	}
	return passwordHash(l.verifier)
}

func (r *Role) readSettings(s *plan.State, l *liveRole) {
	seen := map[string]bool{}
	for _, x := range l.settings {
		if seen[x.name] {
			continue
		}
		seen[x.name] = true
		x, _ = l.setting(x.name)
		where := "every database"
		if x.here {
			where = "this database"
		}
		a := plan.Attr{Name: "setting " + x.name, Value: x.value, Raw: where}
		switch x.name {
		case readOnly:
			a.Name, a.Value = "read_only", strconv.FormatBool(isOn(x.value))
		case searchPath:
			a.Name = searchPath
		case patience:
			a.Name, a.Raw = patience, x.value
			if d, ok := settingDuration(x.value); ok {
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
		"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}[text[len(digits):]]
	return time.Duration(n * float64(unit)), err == nil && known
}

// readGrants writes each privilege as an attribute; what no block can declare, too: it is listed and left alone.
func (r *Role) readGrants(s *plan.State, l *liveRole) {
	for _, schema := range slices.Sorted(maps.Keys(r.known.usage)) {
		has, public := r.known.uses(schema, l.name)
		// On the engine's tables it is part of the privilege; a pipeline's relations may be there, too.
		if !has || schema == engineSchema && len(l.onEngine()) > 0 && (r.Spec == nil || !slices.Contains(r.schemas(r.wanted()), schema)) {
			continue
		}
		a := plan.Attr{Name: usageOf + schema, Value: granted}
		if public {
			a.Origin = "PUBLIC"
		}
		s.Set(a)
	}
	for _, g := range l.grants {
		schema, name, _ := strings.Cut(g.relation, ".")
		if schema == engineSchema && slices.Contains(engineGrants(), name) && g.column == "" && g.grantor == "" {
			continue
		}
		if rel := r.live.relations[name]; rel == nil || rel.schema != schema {
			name = g.relation
		}
		word := g.privilege
		if g.column != "" {
			word += " (" + g.column + ")"
		}
		attr := word + " on " + name
		if g.grantor != "" {
			attr += " by " + g.grantor
		}
		s.Set(plan.Attr{Name: attr, Value: granted})
		if g.option {
			s.Set(plan.Attr{Name: "grant option of " + attr, Value: granted})
		}
	}
	all := len(engineGrants())
	uses, _ := r.known.uses(engineSchema, l.name)
	on := l.onEngine()
	for _, word := range slices.Sorted(maps.Keys(on)) {
		n, value := on[word], granted
		switch {
		case n < all:
			value = fmt.Sprintf("granted on %d of %d tables", n, all)
		case !uses:
			value = "granted, without usage of the schema"
		}
		s.Set(plan.Attr{Name: privilege{word, engineSchema}.String(), Value: value})
	}
}
