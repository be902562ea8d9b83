package table

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

var (
	columnName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
	known      = []spec.ColumnType{
		spec.Timestamptz, spec.Text, spec.Double, spec.Numeric, spec.Bigint, spec.Integer,
		spec.Boolean,
	}
)

// Block is the HCL block that declares a live table as it is, so that the plan after it is empty. What the language has
// no words for is left out, and a comment says so: apply leaves it alone.
func Block(ctx context.Context, c *catalog.Catalog, name string) (string, error) {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	r, err := c.FullTable(ctx, s.Relations[name])
	switch {
	case err != nil:
		return "", err
	case r == nil:
		return "", fmt.Errorf("there is no table %s", name)
	case catalog.OtherKinds[r.Kind] != "":
		return "", fmt.Errorf("%s is a %s", name, catalog.OtherKinds[r.Kind])
	case !spec.BlockName.MatchString(name):
		return "", fmt.Errorf("the name %q cannot be a block's: small letters, digits and _, at most 48", name)
	case r.Key() == nil:
		return "", fmt.Errorf("table %s has no primary key, and pipeline.hcl needs one: ALTER TABLE %s ADD "+
			"PRIMARY KEY (…)", name, pg.Ident(name))
	}
	layout, time, _ := r.Layout()
	if layout != catalog.PlainTable && layout != catalog.Hyper && layout != catalog.Native {
		return "", fmt.Errorf("table %s is %s, and pipeline.hcl knows ranges of one time column only", name, layout)
	}
	file := hclwrite.NewEmptyFile()
	b := file.Body().AppendNewBlock("table", []string{name}).Body()
	if r.Comment != "" {
		b.SetAttributeValue("description", cty.StringVal(r.Comment))
	}
	for _, col := range r.Columns {
		if why := wordless(&col); why != "" {
			if slices.Contains(r.Key().Columns, col.Name) || col.Name == time {
				return "", fmt.Errorf("table %s: column %s is in the primary key or is the time column, and %s", name,
					col.Name, why)
			}
			spec.Remark(b, "column %s: %s; it is left alone", col.Name, why)
			continue
		}
		writeColumn(b.AppendNewBlock("column", []string{col.Name}).Body(), col)
	}
	b.SetAttributeValue("primary_key", spec.Texts(r.Key().Columns))
	for _, x := range r.Indexes {
		switch {
		case x.Primary:
		case x.Using != "" || !x.Valid || !columnName.MatchString(x.Name) || slices.ContainsFunc(x.Columns,
			func(n string) bool {
				return wordless(r.Column(n)) != ""
			}):
			spec.Remark(b, "index %s is of a kind that pipeline.hcl has no words for; it is left alone", x.Name)
		default:
			ib := b.AppendNewBlock("index", nil).Body()
			if x.Name != strings.Join(append(append([]string{name}, x.Columns...), "idx"), "_") {
				ib.SetAttributeValue("name", cty.StringVal(x.Name))
			}
			ib.SetAttributeValue("columns", spec.Texts(x.Columns))
			if x.Unique {
				ib.SetAttributeValue("unique", cty.True)
			}
		}
	}
	if layout != catalog.PlainTable {
		writeHypertable(b, r)
	}
	return string(hclwrite.Format(file.Bytes())), nil
}

// wordless says why a column cannot be declared, "" when it can.
func wordless(c *catalog.Column) string {
	switch {
	case !columnName.MatchString(c.Name):
		return "its name has other signs than small letters, digits and _"
	case !slices.Contains(known, spec.ColumnType(c.Type)):
		return "its type is " + c.Type + ", which pipeline.hcl does not know"
	case c.Identity:
		return "it is an identity column, which pipeline.hcl does not know"
	}
	return ""
}

func writeColumn(b *hclwrite.Body, c catalog.Column) {
	if c.Comment != "" {
		b.SetAttributeValue("description", cty.StringVal(c.Comment))
	}
	b.SetAttributeValue("type", cty.StringVal(c.Type))
	if !c.NotNull {
		b.SetAttributeValue("null", cty.True)
	}
	if c.Expr != "" {
		word := "default"
		if c.Generated {
			word = "generated"
		}
		b.SetAttributeValue(word, cty.StringVal(c.Expr))
	}
}

func writeHypertable(b *hclwrite.Body, r *catalog.Relation) {
	_, time, interval := r.Layout()
	hb := b.AppendNewBlock("hypertable", nil).Body()
	hb.SetAttributeValue("time", cty.StringVal(time))
	if interval > 0 {
		hb.SetAttributeValue("chunk_interval", cty.StringVal(units.FormatDuration(interval)))
	}
	h := r.Hyper
	if h == nil {
		return
	}
	if j := h.Retention; j != nil {
		if j.DropAfter != nil && j.Scheduled {
			hb.SetAttributeValue("retention", cty.StringVal(units.FormatDuration(*j.DropAfter)))
		} else {
			spec.Remark(hb, "a retention policy by %s; it is left alone", catalog.PolicyAge(j, j.DropAfter))
		}
	}
	j := h.Conversion
	switch {
	case j == nil && h.Columnar:
		spec.Remark(hb, "the columnstore is on without a policy; it is left alone")
	case j != nil && (j.After == nil || !j.Scheduled):
		spec.Remark(hb, "a columnstore policy by %s; it is left alone", catalog.PolicyAge(j, j.After))
	case j != nil:
		cb := hb.AppendNewBlock("columnstore", nil).Body()
		cb.SetAttributeValue("after", cty.StringVal(units.FormatDuration(*j.After)))
		if len(h.SegmentBy) > 0 {
			cb.SetAttributeValue("segment_by", spec.Texts(h.SegmentBy))
		}
		if plainOrder(h.OrderBy) && len(h.OrderBy) > 0 {
			cb.SetAttributeValue("order_by", spec.Texts(h.OrderBy))
		} else if len(h.OrderBy) > 0 {
			spec.Remark(cb, "its order is %s; it is left alone", strings.Join(h.OrderBy, ", "))
		}
	}
}

// plainOrder tells whether the language has words for an order.
func plainOrder(order []string) bool {
	for _, o := range order {
		_, direction, _ := strings.Cut(o, " ")
		if direction != "" && direction != "DESC" {
			return false
		}
	}
	return true
}
