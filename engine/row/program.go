package row

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Error is a poison record: it cannot become a row, and never will with this definition.
type Error struct {
	Column string // "" when the record as a whole cannot be read
	Kind   string // what failed, without any value: "column price", "skip", "decode.key", "form"
	Reason string
}

// Error gives the column and the reason.
func (e *Error) Error() string {
	if e.Column == "" {
		return e.Reason
	}
	return "column " + e.Column + ": " + e.Reason
}

// Program maps the records of one source. It has scratch memory: one goroutine uses it; others Clone it.
type Program struct {
	src     *spec.Source
	tree    *rawjson.Tree
	fields  *expr.HTMLFields // nil: JSON
	columns []column
	skip    expr.Eval
	time    int // index of the hypertable's time column, -1 for none
	names   []string
	frame   expr.Frame
	tried   tried
}

type column struct {
	name    string
	expr    hcl.Expression
	typ     spec.ColumnType
	notNull bool
	eval    expr.Eval
	reads   []int // slots of the paths in r that it reads; none: of what may not be null, or reads more than paths
}

// Compile compiles a source's row block once.
func Compile(src *spec.Source) (*Program, error) {
	if src.Definition == nil || src.Table == nil {
		return nil, fmt.Errorf("compile source %s: it has no definition or table", src.Name)
	}
	p := &Program{src: src, tree: &rawjson.Tree{}, time: -1}
	c := &expr.Compiler{Tree: p.tree, Consts: expr.Constants(src)}
	for _, tc := range src.Table.Columns {
		expr := src.Definition.Row.Columns[tc.Name]
		if expr == nil {
			continue
		}
		if src.Table.Hypertable != nil && src.Table.Hypertable.Time == tc.Name {
			p.time = len(p.columns)
		}
		p.columns = append(p.columns, column{tc.Name, expr, tc.Type, !tc.Null, c.Compile(expr), c.Reads(expr, tc.Null)})
		p.names = append(p.names, tc.Name)
	}
	if len(p.columns) == 0 {
		return nil, fmt.Errorf("compile source %s: its row block fills no column of table %s", src.Name, src.Table.Name)
	}
	if src.Definition.Row.Skip != nil {
		p.skip = c.Compile(src.Definition.Row.Skip)
	}
	if src.Definition.Decode.Format == "html" {
		p.fields = expr.NewHTMLFields(src.Definition.Decode.Fields, p.tree)
	}
	p.frame.Values, p.tried.led = make([]rawjson.Value, p.tree.Len()), make([]bool, len(p.columns))
	return p, nil
}

// Clone returns a program with scratch memory of its own.
func (p *Program) Clone() *Program {
	c := *p
	c.frame, c.tried = expr.Frame{Values: make([]rawjson.Value, p.tree.Len())}, tried{led: make([]bool, len(p.columns))}
	return &c
}

// poison says which expression failed, what it met, and what is there.
func (p *Program) poison(column string, e hcl.Expression, err error, rec Record) error {
	kind := "column " + column
	if column == "skip" {
		kind = column
	}
	return &Error{Column: column, Kind: kind, Reason: expr.Explain(p.src.Definition, p.fields, err.Error(), e,
		rec.Value, p.frame.Key)}
}

// Columns lists the columns of a row, in the order of its fields.
func (p *Program) Columns() []string { return p.names }

// Append maps one record and adds its row, with index as its origin. A skipped record adds nothing. A poison record is
// an *Error, and rows stay as they were.
func (p *Program) Append(rows *Rows, rec Record, index int32) error {
	f := &p.frame
	f.Slot, f.Key, f.Keyless = rec.Slot, append(f.Key[:0], rec.Key...), rec.Fault != ""
	if p.fields != nil {
		if err := p.fields.Read(rec.Value, f.Values); err != nil {
			return &Error{Kind: "form", Reason: err.Error()}
		}
	} else if err := p.tree.Scan(rec.Value, f.Values); err != nil {
		return &Error{Kind: "form", Reason: err.Error()}
	}
	if p.skip != nil {
		v, err := p.skip(f)
		skip := false
		if err == nil {
			skip, _, err = expr.Truth(v)
		}
		if err != nil {
			return p.poison("skip", p.src.Definition.Row.Skip, err, rec)
		}
		if skip {
			p.tried.records++
			p.tried.skipped++
			return nil
		}
	}
	if rec.Fault != "" { // not before skip: what is not wanted needs no key
		return &Error{Kind: "decode.key", Reason: rec.Fault}
	}
	p.tried.records++
	start, at := len(rows.Data), int64(0)
	data := binary.BigEndian.AppendUint16(rows.Data, uint16(len(p.columns)))
	for i := range p.columns {
		c := &p.columns[i]
		v, err := c.eval(f)
		before := len(data)
		if err == nil {
			data, err = encode(data, c.typ, v)
		}
		if err == nil && data[before] == 0xff { // null
			if c.notNull {
				err = expr.ErrMissing
			} else if !p.tried.led[i] {
				p.note(i)
			}
		} else {
			p.tried.led[i] = true
		}
		if err != nil {
			rows.Data = data[:start]
			return p.poison(c.name, c.expr, err, rec)
		}
		if i == p.time && len(data)-before == 12 {
			at = int64(binary.BigEndian.Uint64(data[before+4:])) + epoch2000
		}
	}
	rows.Data = data
	rows.Ends = append(rows.Ends, len(data))
	rows.Times = append(rows.Times, at)
	rows.Source = append(rows.Source, index)
	return nil
}
