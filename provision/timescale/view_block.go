package timescale

import (
	"context"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// ViewBlock is the HCL block that declares a live view as it is, so that the plan after it is empty.
func ViewBlock(ctx context.Context, c *Catalog, name string) (string, error) {
	s, err := c.load(ctx)
	if err != nil {
		return "", err
	}
	v, err := c.views(ctx)
	if err != nil {
		return "", err
	}
	l := v.views[name]
	switch {
	case l == nil || s.aggregates[name] != nil:
		return "", fmt.Errorf("there is no view %s", name)
	case !blockName.MatchString(name):
		return "", fmt.Errorf("the name %q cannot be a block's: small letters, digits and _, at most 48", name)
	}
	if l, err = c.defined(ctx, l); err != nil {
		return "", err
	}
	file := hclwrite.NewEmptyFile()
	b := file.Body().AppendNewBlock("view", []string{name}).Body()
	if l.comment != "" {
		b.SetAttributeValue("description", cty.StringVal(l.comment))
	}
	spec.WriteQuery(b, "query", l.query)
	for _, o := range l.options {
		remark(b, "its option %s is left alone", o)
	}
	return string(hclwrite.Format(file.Bytes())), nil
}

// AggregateBlock is the HCL block that declares a live continuous aggregate as it is, so that the plan after it is empty. What
// the language has no words for is left out, and a comment says so: apply leaves it alone.
func AggregateBlock(ctx context.Context, c *Catalog, name string) (string, error) {
	l, err := live(ctx, &Queries{Catalog: c}, name, nil)
	if err != nil {
		return "", err
	}
	switch {
	case l == nil:
		return "", fmt.Errorf("there is no aggregate %s", name)
	case !blockName.MatchString(name):
		return "", fmt.Errorf("the name %q cannot be a block's: small letters, digits and _, at most 48", name)
	}
	s, err := c.load(ctx)
	if err != nil {
		return "", err
	}
	file := hclwrite.NewEmptyFile()
	b := file.Body().AppendNewBlock("aggregate", []string{name}).Body()
	if l.comment != "" {
		b.SetAttributeValue("description", cty.StringVal(l.comment))
	}
	b.SetAttributeRaw("from", hclwrite.TokensForTraversal(reference("table", s.sourceOf(l.ref))))
	spec.WriteQuery(b, "query", l.query)
	if l.real {
		b.SetAttributeValue("real_time", cty.True)
	}
	if j := l.retention; j != nil && j.dropAfter != nil && j.scheduled {
		b.SetAttributeValue("retention", cty.StringVal(units.FormatDuration(*j.dropAfter)))
	} else if j != nil {
		remark(b, "a retention policy by %s; it is left alone", policyAge(j, j.dropAfter))
	}
	if j := l.refresh; j != nil && j.start != nil && j.end != nil && j.scheduled {
		rb := b.AppendNewBlock("refresh", nil).Body()
		rb.SetAttributeValue("start", cty.StringVal(units.FormatDuration(*j.start)))
		rb.SetAttributeValue("end", cty.StringVal(units.FormatDuration(*j.end)))
		rb.SetAttributeValue("every", cty.StringVal(units.FormatDuration(j.every)))
	} else if j != nil {
		remark(b, "a policy to %s (%s); it is left alone", describeJob(j), policyAge(j, &j.every))
	}
	if l.columnar {
		remark(b, "its columnstore is left alone")
	}
	for _, j := range l.more {
		remark(b, "policy %d (%s) is left alone", j.id, describeJob(j))
	}
	return string(hclwrite.Format(file.Bytes())), nil
}

// sourceOf follows aggregates of aggregates down to the hypertable.
func (s *snapshot) sourceOf(a *aggregateRef) string {
	for _, parent := range s.aggregates {
		if parent.storedSchema == a.fromSchema && parent.storedName == a.fromName {
			return s.sourceOf(parent)
		}
	}
	return a.fromName
}

// reference is kind.name.
func reference(kind, name string) hcl.Traversal {
	return hcl.Traversal{hcl.TraverseRoot{Name: kind}, hcl.TraverseAttr{Name: name}}
}
