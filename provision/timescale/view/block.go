package view

import (
	"context"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
	"github.com/cryptoviz/cryptoviz/provision/timescale/shadow"
)

// Block is the HCL block that declares a live view as it is, so that the plan after it is empty.
func Block(ctx context.Context, c *catalog.Catalog, name string) (string, error) {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	v, err := c.Views(ctx)
	if err != nil {
		return "", err
	}
	l := v.Views[name]
	switch {
	case l == nil || s.Aggregates[name] != nil:
		return "", fmt.Errorf("there is no view %s", name)
	case !spec.BlockName.MatchString(name):
		return "", fmt.Errorf("the name %q cannot be a block's: small letters, digits and _, at most 48", name)
	}
	if l, err = c.FullView(ctx, l); err != nil {
		return "", err
	}
	file := hclwrite.NewEmptyFile()
	b := file.Body().AppendNewBlock("view", []string{name}).Body()
	if l.Comment != "" {
		b.SetAttributeValue("description", cty.StringVal(l.Comment))
	}
	spec.WriteQuery(b, "query", l.Query)
	for _, o := range l.Options {
		spec.Remark(b, "its option %s is left alone", o)
	}
	return string(hclwrite.Format(file.Bytes())), nil
}

// AggregateBlock is the HCL block that declares a live continuous aggregate as it is, so that the plan after it is
// empty. What the language has no words for is left out, and a comment says so: apply leaves it alone.
func AggregateBlock(ctx context.Context, c *catalog.Catalog, name string) (string, error) {
	l, err := live(ctx, &shadow.Queries{Catalog: c}, name, nil)
	if err != nil {
		return "", err
	}
	switch {
	case l == nil:
		return "", fmt.Errorf("there is no aggregate %s", name)
	case !spec.BlockName.MatchString(name):
		return "", fmt.Errorf("the name %q cannot be a block's: small letters, digits and _, at most 48", name)
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	file := hclwrite.NewEmptyFile()
	b := file.Body().AppendNewBlock("aggregate", []string{name}).Body()
	if l.Comment != "" {
		b.SetAttributeValue("description", cty.StringVal(l.Comment))
	}
	b.SetAttributeRaw("from", hclwrite.TokensForTraversal(reference("table", s.SourceOf(l.ref))))
	spec.WriteQuery(b, "query", l.Query)
	if l.Real {
		b.SetAttributeValue("real_time", cty.True)
	}
	if j := l.retention; j != nil && j.DropAfter != nil && j.Scheduled {
		b.SetAttributeValue("retention", cty.StringVal(units.FormatDuration(*j.DropAfter)))
	} else if j != nil {
		spec.Remark(b, "a retention policy by %s; it is left alone", catalog.PolicyAge(j, j.DropAfter))
	}
	if j := l.refresh; j != nil && j.Start != nil && j.End != nil && j.Scheduled {
		rb := b.AppendNewBlock("refresh", nil).Body()
		rb.SetAttributeValue("start", cty.StringVal(units.FormatDuration(*j.Start)))
		rb.SetAttributeValue("end", cty.StringVal(units.FormatDuration(*j.End)))
		rb.SetAttributeValue("every", cty.StringVal(units.FormatDuration(j.Every)))
	} else if j != nil {
		spec.Remark(b, "a policy to %s (%s); it is left alone", describeJob(j), catalog.PolicyAge(j, &j.Every))
	}
	if l.Columnar {
		spec.Remark(b, "its columnstore is left alone")
	}
	for _, j := range l.more {
		spec.Remark(b, "policy %d (%s) is left alone", j.ID, describeJob(j))
	}
	return string(hclwrite.Format(file.Bytes())), nil
}

// reference is kind.name.
func reference(kind, name string) hcl.Traversal {
	return hcl.Traversal{hcl.TraverseRoot{Name: kind}, hcl.TraverseAttr{Name: name}}
}
