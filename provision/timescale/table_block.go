package timescale

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/pg"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

var (
	blockName  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)
	columnName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
	known      = []spec.ColumnType{spec.Timestamptz, spec.Text, spec.Double, spec.Numeric, spec.Bigint, spec.Integer, spec.Boolean}
)

// TableBlock is the HCL block that declares a live table as it is, so that the plan after it is empty. What the language has no
// words for is left out, and a comment says so: apply leaves it alone.
func TableBlock(ctx context.Context, c *Catalog, name string) (string, error) {
	s, err := c.load(ctx)
	if err != nil {
		return "", err
	}
	r, err := c.whole(ctx, s.relations[name])
	switch {
	case err != nil:
		return "", err
	case r == nil:
		return "", fmt.Errorf("there is no table %s", name)
	case kinds[r.kind] != "":
		return "", fmt.Errorf("%s is a %s", name, kinds[r.kind])
	case !blockName.MatchString(name):
		return "", fmt.Errorf("the name %q cannot be a block's: small letters, digits and _, at most 48", name)
	case r.key() == nil:
		return "", fmt.Errorf("table %s has no primary key, and pipeline.hcl needs one: ALTER TABLE %s ADD PRIMARY KEY (…)", name, pg.Ident(name))
	}
	layout, time, _ := r.cut()
	if layout != plain && layout != hyper && layout != native {
		return "", fmt.Errorf("table %s is %s, and pipeline.hcl knows ranges of one time column only", name, layout)
	}
	file := hclwrite.NewEmptyFile()
	b := file.Body().AppendNewBlock("table", []string{name}).Body()
	if r.comment != "" {
		b.SetAttributeValue("description", cty.StringVal(r.comment))
	}
	for _, col := range r.columns {
		if why := wordless(&col); why != "" {
			if slices.Contains(r.key().columns, col.name) || col.name == time {
				return "", fmt.Errorf("table %s: column %s is in the primary key or is the time column, and %s", name, col.name, why)
			}
			remark(b, "column %s: %s; it is left alone", col.name, why)
			continue
		}
		writeColumn(b.AppendNewBlock("column", []string{col.name}).Body(), col)
	}
	b.SetAttributeValue("primary_key", texts(r.key().columns))
	for _, x := range r.indexes {
		switch {
		case x.primary:
		case x.using != "" || !x.valid || !columnName.MatchString(x.name) || slices.ContainsFunc(x.columns, func(n string) bool { return wordless(r.column(n)) != "" }):
			remark(b, "index %s is of a kind that pipeline.hcl has no words for; it is left alone", x.name)
		default:
			ib := b.AppendNewBlock("index", nil).Body()
			if x.name != strings.Join(append(append([]string{name}, x.columns...), "idx"), "_") {
				ib.SetAttributeValue("name", cty.StringVal(x.name))
			}
			ib.SetAttributeValue("columns", texts(x.columns))
			if x.unique {
				ib.SetAttributeValue("unique", cty.True)
			}
		}
	}
	if layout != plain {
		writeHypertable(b, r)
	}
	return string(hclwrite.Format(file.Bytes())), nil
}

// wordless says why a column cannot be declared, "" when it can.
func wordless(c *liveColumn) string {
	switch {
	case !columnName.MatchString(c.name):
		return "its name has other signs than small letters, digits and _"
	case !slices.Contains(known, spec.ColumnType(c.typ)):
		return "its type is " + c.typ + ", which pipeline.hcl does not know"
	case c.identity:
		return "it is an identity column, which pipeline.hcl does not know"
	}
	return ""
}

func writeColumn(b *hclwrite.Body, c liveColumn) {
	if c.comment != "" {
		b.SetAttributeValue("description", cty.StringVal(c.comment))
	}
	b.SetAttributeValue("type", cty.StringVal(c.typ))
	if !c.notNull {
		b.SetAttributeValue("null", cty.True)
	}
	if c.expr != "" {
		word := "default"
		if c.generated {
			word = "generated"
		}
		b.SetAttributeValue(word, cty.StringVal(c.expr))
	}
}

func writeHypertable(b *hclwrite.Body, r *relation) {
	_, time, interval := r.cut()
	hb := b.AppendNewBlock("hypertable", nil).Body()
	hb.SetAttributeValue("time", cty.StringVal(time))
	if interval > 0 {
		hb.SetAttributeValue("chunk_interval", cty.StringVal(units.FormatDuration(interval)))
	}
	h := r.hyper
	if h == nil {
		return
	}
	if j := h.retention; j != nil {
		if j.dropAfter != nil && j.scheduled {
			hb.SetAttributeValue("retention", cty.StringVal(units.FormatDuration(*j.dropAfter)))
		} else {
			remark(hb, "a retention policy by %s; it is left alone", policyAge(j, j.dropAfter))
		}
	}
	j := h.conversion
	switch {
	case j == nil && h.columnar:
		remark(hb, "the columnstore is on without a policy; it is left alone")
	case j != nil && (j.after == nil || !j.scheduled):
		remark(hb, "a columnstore policy by %s; it is left alone", policyAge(j, j.after))
	case j != nil:
		cb := hb.AppendNewBlock("columnstore", nil).Body()
		cb.SetAttributeValue("after", cty.StringVal(units.FormatDuration(*j.after)))
		if len(h.segmentBy) > 0 {
			cb.SetAttributeValue("segment_by", texts(h.segmentBy))
		}
		if plainOrder(h.orderBy) && len(h.orderBy) > 0 {
			cb.SetAttributeValue("order_by", texts(h.orderBy))
		} else if len(h.orderBy) > 0 {
			remark(cb, "its order is %s; it is left alone", strings.Join(h.orderBy, ", "))
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

func texts(list []string) cty.Value {
	values := make([]cty.Value, len(list))
	for i, s := range list {
		values[i] = cty.StringVal(s)
	}
	return cty.TupleVal(values)
}

// remark writes a comment line.
func remark(b *hclwrite.Body, format string, args ...any) {
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	b.AppendUnstructuredTokens(hclwrite.Tokens{{Type: hclsyntax.TokenComment, Bytes: []byte("# " + text + "\n")}})
}
