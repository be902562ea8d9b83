package role

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/plan"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// Block is the HCL block that declares a live role as it is, so that the plan after it is empty. A password cannot be
// read back; it and what the language has no words for are left out, and a comment says so: apply leaves them alone.
// Grants name tables, views and aggregates, which must be declared, too.
func Block(ctx context.Context, c *catalog.Catalog, name string) (string, error) {
	r := &Role{Queries: &shadow.Queries{Catalog: c, Pipeline: &spec.Pipeline{}}, Removed: &spec.Removed{Name: name}}
	s, err := r.Read(ctx)
	if err != nil {
		return "", err
	}
	l := r.known.Roles[name]
	switch {
	case l == nil:
		return "", fmt.Errorf("there is no role %s", name)
	case !spec.BlockName.MatchString(name):
		return "", fmt.Errorf("the name %q cannot be a block's: small letters, digits and _, at most 48", name)
	case whatItIs(l) != "":
		return "", fmt.Errorf("role %s cannot be declared: %s", name, whatItIs(l))
	}
	file := hclwrite.NewEmptyFile()
	b := file.Body().AppendNewBlock("role", []string{name}).Body()
	if !l.Login {
		b.SetAttributeValue("login", cty.False)
	}
	words := map[string][]string{} // what is granted on each relation
	var left []string
	for _, a := range s.Attrs {
		switch {
		case a.Origin != "" || a.Name == "login" || strings.HasPrefix(a.Name, usageOf):
		case a.Name == ownPassword:
			spec.Remark(b, "it has a password, which is left alone: password = env(\"…\") sets another")
		case a.Name == "read_only" && a.Value == "true":
			b.SetAttributeValue("read_only", cty.True)
		case a.Name == patience && r.declarable(a):
			b.SetAttributeValue(patience, cty.StringVal(a.Value))
		case r.grants(a, words):
		default:
			left = append(left, a.Name)
		}
	}
	for _, n := range left {
		spec.Remark(b, "%s is left alone", n)
	}
	writeGrants(b, r, words)
	return string(hclwrite.Format(file.Bytes())), nil
}

// declarable tells whether the language has the timeout.
func (r *Role) declarable(a plan.Attr) bool {
	d, err := units.ParseDuration(a.Value)
	return err == nil && d > 0
}

// grants notes a privilege that the language has.
func (r *Role) grants(a plan.Attr, words map[string][]string) bool {
	word, on, is := strings.Cut(a.Name, " on ")
	if !is || a.Value != granted || !slices.Contains([]string{"select", "insert", "update", "delete"}, word) ||
		r.reference(on) == "" {
		return false
	}
	words[on] = append(words[on], word)
	return true
}

// reference names a relation as the language does; "" when it cannot.
func (r *Role) reference(on string) string {
	rel := r.live.Relations[on]
	switch {
	case on == catalog.EngineSchema:
		return on
	case rel == nil || !spec.BlockName.MatchString(on):
		return ""
	case r.live.Aggregates[on] != nil:
		return "aggregate." + on
	case rel.Kind == "v":
		return "view." + on
	case rel.Kind == "r" || rel.Kind == "p":
		return "table." + on
	}
	return ""
}

// writeGrants writes one grant block for all relations with the same privileges.
func writeGrants(b *hclwrite.Body, r *Role, words map[string][]string) {
	together := map[string][]string{}
	for _, on := range slices.Sorted(maps.Keys(words)) {
		key := strings.Join(slices.Sorted(slices.Values(words[on])), " ")
		together[key] = append(together[key], r.reference(on))
	}
	for _, key := range slices.Sorted(maps.Keys(together)) {
		gb := b.AppendNewBlock("grant", nil).Body()
		gb.SetAttributeValue("privileges", spec.Texts(strings.Fields(key)))
		var items []hclwrite.Tokens
		for _, on := range together[key] {
			items = append(items, hclwrite.TokensForIdentifier(on))
		}
		gb.SetAttributeRaw("on", hclwrite.TokensForTuple(items))
	}
}
