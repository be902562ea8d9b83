package decode

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/PuerkitoBio/goquery"
	"github.com/andybalholm/cascadia"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/net/html"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Piece is one record of a reply. Value lies inside the reply's bytes, once they are UTF-8.
type Piece struct {
	Key   string
	Value []byte
	Fault string // why Key could not be computed; Key is then ""
}

// ShapeError is a reply that is not what the decode block expects.
type ShapeError struct{ Reason string }

// Error says what was expected and what came.
func (e *ShapeError) Error() string { return e.Reason }

// What one reply may hold: a few bytes of it can cost a hundred times as much memory.
const (
	maxRecords  = 100_000
	maxRead     = 200_000   // elements of a value that an expression reads as a whole
	maxTags     = 250_000   // of a page
	maxReopened = 1_000_000 // formatting elements of a page, as often as the parser opens them again
	maxFaults   = 100       // keys that fail and are explained
)

// Decoder cuts replies into records. One goroutine uses it.
type Decoder struct {
	src      *spec.Source
	consts   map[string]cty.Value
	body     rawjson.Tree
	values   []rawjson.Value
	records  int
	when     *expr.Interpreted
	failures []failure
	key      expr.Eval
	record   rawjson.Tree
	frame    expr.Frame
	fields   *expr.HTMLFields
	match    goquery.Matcher

	faults    int // keys that failed in this reply
	lastFault struct{ reason, text string }
}

// NewDecoder compiles a source's decode block.
func NewDecoder(src *spec.Source) (*Decoder, error) {
	d, dec := &Decoder{src: src, consts: expr.Constants(src)}, src.Definition.Decode
	if dec.Key != nil {
		c := &expr.Compiler{Tree: &d.record, Consts: d.consts}
		d.key = c.Compile(dec.Key)
	}
	switch dec.Format {
	case "json":
		d.records = d.body.Add(dec.Records)
		if dec.When != nil {
			d.when = expr.Interpret(&d.body, dec.When, "body")
		}
		d.failures = newFailures(&d.body, dec)
	case "html":
		match, err := cascadia.Compile(dec.Select)
		if err != nil {
			return nil, fmt.Errorf("compile source %s: selector %q: %w", src.Name, dec.Select, err)
		}
		d.match = match
		d.fields = expr.NewHTMLFields(dec.Fields, &d.record)
	default:
		return nil, fmt.Errorf("compile source %s: format %q is not known", src.Name, dec.Format)
	}
	d.values = make([]rawjson.Value, d.body.Len())
	d.frame.Values = make([]rawjson.Value, d.record.Len())
	return d, nil
}

// Records cuts one reply or frame of which no Content-Type is known.
func (d *Decoder) Records(body []byte) ([]Piece, error) { return d.Decode("", body) }

// Decode cuts one reply or frame. A frame that `when` does not want gives none. With a SourceError there may be
// records, too, unless its effect is to try again.
func (d *Decoder) Decode(contentType string, body []byte) ([]Piece, error) {
	body, err := d.Text(contentType, body)
	if err != nil {
		return nil, err
	}
	d.faults = 0
	if d.match != nil {
		return d.elements(body)
	}
	if err := d.body.Scan(body, d.values); err != nil {
		return nil, err
	}
	if err := d.readable(d.when); err != nil {
		return nil, err
	}
	said, err := d.failure()
	if err != nil {
		return nil, err
	}
	if said == nil {
		return d.wanted()
	}
	if said.Effect != spec.EffectLog {
		return nil, said
	}
	pieces, err := d.wanted()
	if err != nil {
		pieces = nil // what came is the failure, and nothing else
	}
	return pieces, said
}

// wanted cuts a scanned reply, if it counts.
func (d *Decoder) wanted() ([]Piece, error) {
	if d.when != nil {
		v, err := d.when.Value(d.values, d.vars())
		if err != nil {
			return nil, &ShapeError{"decode.when: " + err.Error()}
		}
		if v, _ = v.Unmark(); !v.IsNull() && v.Type() != cty.Bool {
			text, at := d.src.Definition.Quote(d.when.Expr)
			return nil, &ShapeError{fmt.Sprintf("decode.when: %s (%s) is neither true nor false", text, at)}
		}
		if !isTrue(v) {
			return nil, nil
		}
	}
	dec, at := d.src.Definition.Decode, d.values[d.records]
	switch {
	case at.Kind == rawjson.Array && !dec.Keyed, at.Kind == rawjson.Object && dec.Keyed:
		var out []Piece
		err := at.Each(func(name []byte, v rawjson.Value) error {
			if len(out) == maxRecords {
				return &ShapeError{fmt.Sprintf("the reply has more than %d records", maxRecords)}
			}
			out = append(out, d.piece(string(name), v.Raw))
			return nil
		})
		return out, err
	case at.Kind == rawjson.Object:
		return []Piece{d.piece("", at.Raw)}, nil
	}
	want := "a list or an object"
	if dec.Keyed {
		want = "an object with a member for each market"
	}
	return nil, &ShapeError{fmt.Sprintf("the reply has %s at %s, not %s: has the API changed?", expr.KindName(at.Kind),
		expr.Dotted("body", dec.Records), want)}
}

// readable tells whether what the expressions read is small enough to become values of the language.
func (d *Decoder) readable(exprs ...*expr.Interpreted) error {
	for _, e := range exprs {
		if e == nil {
			continue
		}
		for i, slot := range e.Slots {
			if bytes.Count(d.values[slot].Raw, []byte{','}) > maxRead {
				return &ShapeError{fmt.Sprintf("%s has more than %d elements: too many for an expression",
					expr.Dotted("body", e.Paths[i]), maxRead)}
			}
		}
	}
	return nil
}

func (d *Decoder) vars() map[string]cty.Value {
	return map[string]cty.Value{"param": d.consts["param"], "source": d.consts["source"]}
}

// piece makes a record of its bytes. One whose key fails is a record too: it ends as a dead letter that says why.
func (d *Decoder) piece(name string, raw []byte) Piece {
	if d.key == nil {
		if name == "" {
			name = d.src.Name
		}
		return Piece{Key: name, Value: raw}
	}
	key, err := d.keyOf(name, raw)
	if err == nil {
		return Piece{Key: key, Value: raw}
	}
	return Piece{Value: raw, Fault: d.fault(err.Error(), raw)}
}

// fault says why a record has no key: of the first ones of a reply in full.
func (d *Decoder) fault(reason string, raw []byte) string {
	if d.faults++; d.faults <= maxFaults {
		return "decode.key: " + expr.Explain(d.src.Definition, d.fields, reason, d.src.Definition.Decode.Key, raw,
			d.frame.Key)
	}
	if d.lastFault.reason != reason {
		text, at := d.src.Definition.Quote(d.src.Definition.Decode.Key)
		d.lastFault.reason, d.lastFault.text = reason, fmt.Sprintf("decode.key: %s; %s (%s)", reason, text, at)
	}
	return d.lastFault.text
}

func (d *Decoder) keyOf(name string, raw []byte) (string, error) {
	d.frame.Key = append(d.frame.Key[:0], name...)
	if d.fields != nil {
		if err := d.fields.Read(raw, d.frame.Values); err != nil {
			return "", err
		}
	} else if err := d.record.Scan(raw, d.frame.Values); err != nil {
		return "", err
	}
	v, err := d.key(&d.frame)
	if err != nil {
		return "", err
	}
	if v.Missing() {
		return "", expr.ErrMissing
	}
	text, err := expr.TextOf(v)
	return string(text), err
}

// elements cuts an HTML page.
func (d *Decoder) elements(body []byte) ([]Piece, error) {
	if bytes.Count(body, []byte{'<'}) > maxTags {
		return nil, &ShapeError{fmt.Sprintf("the page has more than %d tags", maxTags)}
	}
	if reopened(body) > maxReopened {
		return nil, &ShapeError{"the page costs too much to read: formatting elements that are never closed"}
	}
	doc, err := goquery.NewDocumentFromReader(&impatient{page: bytes.NewReader(body), began: time.Now()})
	if err != nil {
		return nil, &ShapeError{"not HTML: " + err.Error()}
	}
	var out []Piece
	var buf bytes.Buffer
	for _, n := range doc.FindMatcher(d.match).Nodes {
		from := buf.Len()
		if err := html.Render(&buf, n); err != nil {
			return nil, &ShapeError{"not HTML: " + err.Error()}
		}
		// An element inside another one that matches too is rendered again with each.
		if len(out) == maxRecords || buf.Len() > 64<<10+4*len(body) {
			return nil, &ShapeError{fmt.Sprintf("%q matches too much of the page: elements inside each other",
				d.src.Definition.Decode.Select)}
		}
		out = append(out, d.piece("", bytes.Clone(buf.Bytes()[from:])))
	}
	if len(out) == 0 {
		return nil, &ShapeError{fmt.Sprintf("the page has changed: nothing matches %q", d.src.Definition.Decode.Select)}
	}
	return out, nil
}

// patience of the parser: a hundred times and more what pages take, since the machine may be busy.
const patience = 5 * time.Second

// impatient reads a page for the parser, and ends when it takes far too long. What is known to take long, such as open
// formatting elements, is refused before.
type impatient struct {
	page  *bytes.Reader
	began time.Time
}

func (r *impatient) Read(p []byte) (int, error) {
	read := r.page.Size() - int64(r.page.Len())
	if time.Since(r.began) > patience+time.Duration(read)*20*time.Microsecond {
		return 0, errors.New("the page takes too long to read")
	}
	return r.page.Read(p)
}

// formatting are the elements that the parser opens again in each later element while they are not closed: so each tag can
// cost as much as hundreds.
var formatting = map[string]bool{
	"a": true, "b": true, "big": true, "code": true, "em": true, "font": true, "i": true, "nobr": true, "s": true,
	"small": true, "strike": true, "strong": true, "tt": true, "u": true,
}

// reopened is how often the parser opens formatting elements of a page again, at the most. Cells of tables close them.
func reopened(body []byte) (total int) {
	open, n, tables := map[string]int{}, 0, 0
	for z := html.NewTokenizer(bytes.NewReader(body)); ; {
		kind := z.Next()
		if kind == html.ErrorToken {
			return total
		}
		if kind != html.StartTagToken && kind != html.EndTagToken {
			continue
		}
		tag, _ := z.TagName()
		name := string(tag)
		switch {
		case name == "table" && kind == html.StartTagToken:
			tables++
		case name == "table":
			tables = max(0, tables-1)
		}
		switch {
		case tables > 0 && (name == "td" || name == "th" || name == "caption"):
			clear(open)
			n = 0
		case kind == html.StartTagToken && formatting[name]:
			open[name]++
			n++
		case kind == html.StartTagToken:
			total += n
		case open[name] > 0:
			open[name]--
			n--
		}
	}
}
