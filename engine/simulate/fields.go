package simulate

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// field is a place in a record that the row block reads as a time or as a price.
type field struct {
	path  spec.Path
	price bool // else a time
	whole bool // price: into an integer column
}

// fieldsOf looks through a row block. Times are what timestamptz columns read; prices are what columns of unit "price"
// read, and what a percent column sets against a price (the price a day ago).
func fieldsOf(src *spec.Source) []field {
	var out []field
	find := func(p spec.Path) int {
		return slices.IndexFunc(out, func(r field) bool { return slices.Equal(r.path, p) })
	}
	add := func(c *spec.Column, price bool) {
		for _, p := range paths(src.Definition.Row.Columns[c.Name]) {
			if find(p) < 0 {
				out = append(out, field{p, price, c.Type == spec.Integer || c.Type == spec.Bigint})
			}
		}
	}
	for _, c := range src.Table.Columns {
		if c.Type == spec.Timestamptz {
			add(c, false)
		}
	}
	for _, c := range src.Table.Columns {
		if c.Unit == "price" {
			add(c, true)
		}
	}
	for _, c := range src.Table.Columns {
		if c.Unit != "percent" {
			continue
		}
		if slices.ContainsFunc(paths(src.Definition.Row.Columns[c.Name]), func(p spec.Path) bool {
			i := find(p)
			return i >= 0 && out[i].price
		}) {
			add(c, true)
		}
	}
	return out
}

// paths lists what an expression takes its value from: not what it only compares.
func paths(from hcl.Expression) []spec.Path {
	switch e := from.(type) {
	case nil:
		return nil
	case *hclsyntax.ParenthesesExpr:
		return paths(e.Expression)
	case *hclsyntax.ConditionalExpr:
		return append(paths(e.TrueResult), paths(e.FalseResult)...)
	}
	var out []spec.Path
	for _, tr := range from.Variables() {
		if tr.RootName() == "r" {
			out = append(out, expr.PathOf(tr))
		}
	}
	return out
}

// reader maps records as a worker would, to learn which of them become rows and whose they are.
type reader struct {
	src  *spec.Source
	prog *row.Program
	rows row.Rows
}

// market tells the first column of the table's key that the record itself fills (the asset), and all of them (the
// market). A record that gives no row is known by its Kafka key alone; the error says why it gives none.
func (r *reader) market(p decode.Piece) (asset, market string, mapped bool, err error) {
	r.rows.Reset()
	err = r.prog.Append(&r.rows, row.Record{Key: p.Key, Value: p.Value, Slot: time.Unix(1_700_000_000, 0)}, 0)
	if err != nil || r.rows.Len() == 0 {
		return p.Key, p.Key, false, err
	}
	var parts []string
	data, at := r.rows.Data, 2
	for _, name := range r.prog.Columns() {
		n := int(int32(binary.BigEndian.Uint32(data[at:])))
		at += 4
		if n < 0 {
			continue
		}
		field := data[at : at+n]
		at += n
		own := slices.ContainsFunc(r.src.Definition.Row.Columns[name].Variables(), func(tr hcl.Traversal) bool {
			return tr.RootName() == "r" || tr.RootName() == "key"
		})
		if own && slices.Contains(r.src.Table.PrimaryKey, name) && r.src.Table.Column(name).Type == spec.Text {
			parts = append(parts, string(field))
		}
	}
	if len(parts) == 0 {
		return p.Key, p.Key, true, nil
	}
	return parts[0], strings.Join(parts, "/"), true, nil
}
