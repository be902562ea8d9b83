package simulate

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/PuerkitoBio/goquery"
	"golang.org/x/net/html"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/row"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// template is a reply or frame with holes for times and prices.
type template struct {
	parts  [][]byte // parts[i] comes before holes[i]; one more part than holes
	holes  []hole
	groups []record
	times  int // holes that are times
}

// hole is one time or price.
type hole struct {
	time   timeForm
	lag    time.Duration // time: how far behind now
	number numberForm    // price, when digits >= 0
	digits int           // price: digits behind the point; -1 for a time
	group  int           // price: whose record it stands in
}

// record is one record of the template: its prices move together, so that high, low, bid and ask keep their order.
type record struct {
	walk  walk
	scale float64 // 1, or what sets a made-up market's price apart from its model's
	row   bool
}

// render fills the holes in. Walks may be left out (recorded prices stay).
func (t *template) render(buf []byte, now time.Time) []byte {
	factor, last := 1.0, -1
	for i, h := range t.holes {
		buf = append(buf, t.parts[i]...)
		if h.digits < 0 {
			buf = h.time.append(buf, now.Add(-h.lag))
			continue
		}
		if h.group != last {
			g := t.groups[h.group]
			factor, last = g.walk.factor(now)*g.scale, h.group
		}
		buf = h.number.append(buf, h.number.value*factor, h.digits)
	}
	return append(buf, t.parts[len(t.parts)-1]...)
}

// mark is a hole at a place of the text, before its forms are known.
type mark struct {
	from, to int
	hole
}

// cut makes the template: marks out of order, or one inside another, cannot be, since each comes from one value.
func cut(body []byte, marks []mark, groups []record) *template {
	slices.SortFunc(marks, func(a, b mark) int { return a.from - b.from })
	t := &template{groups: groups}
	at := 0
	for _, m := range marks {
		if m.from < at {
			continue
		}
		t.parts, t.holes, at = append(t.parts, body[at:m.from]), append(t.holes, m.hole), m.to
		if m.digits < 0 {
			t.times++
		}
	}
	t.parts = append(t.parts, body[at:])
	return t
}

// maker turns the replies and frames of one source into templates.
type maker struct {
	src     *spec.Source
	seed    uint64
	dec     *decode.Decoder
	reader  reader
	reads   []field
	scales  map[string]float64 // by key; absent: 1
	prices  bool               // move them
	poison  func(key string, err error)
	tree    rawjson.Tree // the reads
	slots   []int
	values  []rawjson.Value
	outside rawjson.Tree                    // decode.records, for frames that hold no record
	market  func(string) (expr.Pair, error) // how the definition reads a symbol
	at      []rawjson.Value
}

func newMaker(src *spec.Source, seed uint64, prices bool, poison func(key string, err error)) (*maker, error) {
	dec, err := decode.NewDecoder(src)
	if err != nil {
		return nil, err
	}
	prog, err := row.Compile(src)
	if err != nil {
		return nil, err
	}
	m := &maker{
		src: src, seed: seed, dec: dec, reader: reader{src: src, prog: prog}, reads: fieldsOf(src),
		market: expr.MarketOf(src),
		scales: map[string]float64{}, prices: prices, poison: poison,
	}
	for _, r := range m.reads {
		m.slots = append(m.slots, m.tree.Add(r.path))
	}
	m.values = make([]rawjson.Value, m.tree.Len())
	m.outside.Add(src.Definition.Decode.Records)
	m.at = make([]rawjson.Value, 1)
	return m, nil
}

// compile cuts a reply or frame. now is what its times are measured against when lags are to be kept; zero: they become
// now.
func (m *maker) compile(body []byte, now time.Time) (*template, error) {
	pieces, err := m.dec.Records(body)
	if err != nil {
		return nil, err
	}
	var groups []record
	for _, p := range pieces {
		asset, market, row, err := m.reader.market(p)
		if err != nil {
			m.poison(p.Key, err)
		}
		g := record{walk: newWalk(m.seed, m.src.Name, asset, market), scale: 1, row: row}
		if s, ok := m.scales[p.Key]; ok {
			g.scale = s
		}
		groups = append(groups, g)
	}
	if m.src.Definition.Decode.Format == "html" {
		return m.page(body, groups, now)
	}
	var marks []mark
	for i, p := range pieces {
		if err := m.tree.Scan(p.Value, m.values); err != nil {
			return nil, err
		}
		marks = append(marks, m.marks(body, i, now)...)
	}
	if len(pieces) == 0 { // a heartbeat or acknowledgement: its times move too
		if m.outside.Scan(body, m.at) == nil && m.at[0].Kind == rawjson.Object &&
			m.tree.Scan(m.at[0].Raw, m.values) == nil {
			marks = slices.DeleteFunc(m.marks(body, 0, now), func(k mark) bool { return k.digits >= 0 })
		}
	}
	return cut(body, marks, groups), nil
}

// marks finds the holes of a record whose values were just scanned. The values lie inside body.
func (m *maker) marks(body []byte, group int, now time.Time) []mark {
	var out []mark
	for i, r := range m.reads {
		v := m.values[m.slots[i]]
		if v.Kind != rawjson.Number && v.Kind != rawjson.String || v.Escaped {
			continue
		}
		from := cap(body) - cap(v.Raw)
		if k, ok := m.mark(r, string(v.Raw), group, now); ok {
			k.from, k.to = from+k.from, from+k.to
			out = append(out, k)
		}
	}
	return round(out)
}

// mark reads one value; from and to are offsets in it.
func (m *maker) mark(r field, text string, group int, now time.Time) (mark, bool) {
	if r.price {
		n, ok := readNumber(text)
		if r.whole {
			n.own, n.exact = 0, 0
		}
		return mark{n.from, n.to, hole{number: n, group: group}}, ok && m.prices
	}
	form, at, ok := readTime(text)
	var lag time.Duration
	if !now.IsZero() {
		lag = min(max(now.Sub(at), 0), maxLag)
	}
	return mark{0, len(text), hole{time: form, lag: lag, digits: -1, group: group}}, ok
}

// round sets the digits that a record's prices are rounded to: one number for all, so that rounding keeps their order;
// as fine as the finest of them, and at least five digits in all where the form has room.
func round(marks []mark) []mark {
	digits, room, least := 0, 0, math.Inf(1)
	for _, k := range marks {
		if k.digits >= 0 {
			digits, room, least = max(digits, k.number.exact), max(room, k.number.own),
				min(least, math.Abs(k.number.value))
		}
	}
	if !math.IsInf(least, 1) {
		digits = min(room, max(digits, 4-int(math.Floor(math.Log10(least)))))
	}
	for i := range marks {
		if marks[i].digits >= 0 {
			marks[i].digits = digits
		}
	}
	return marks
}

// page cuts an HTML page: holes are marked by words in the document, which is then written and cut at them.
func (m *maker) page(body []byte, groups []record, now time.Time) (*template, error) {
	doc, err := goquery.NewDocumentFromReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	word := func(i int) string { return fmt.Sprintf("cv%dhole%dcv", hash(string(body)), i) }
	var marks []mark
	doc.Find(m.src.Definition.Decode.Select).Each(func(group int, s *goquery.Selection) {
		start := len(marks)
		for _, f := range m.src.Definition.Decode.Fields {
			i := slices.IndexFunc(m.reads, func(r field) bool { return len(r.path) == 1 && r.path[0] == f.Name })
			at := s
			if f.Select != "" {
				at = s.Find(f.Select).First()
			}
			if i < 0 || at.Length() == 0 {
				continue
			}
			text := strings.Join(strings.Fields(at.Text()), " ")
			if f.Attr != "" {
				text = at.AttrOr(f.Attr, "")
			}
			k, ok := m.mark(m.reads[i], text, group, now)
			if !ok {
				continue
			}
			text = text[:k.from] + word(len(marks)) + text[k.to:]
			if f.Attr != "" {
				at.SetAttr(f.Attr, text)
			} else {
				at.SetText(text)
			}
			marks = append(marks, k)
		}
		round(marks[start:])
	})
	if len(marks) == 0 {
		return cut(body, nil, groups), nil
	}
	var out bytes.Buffer
	if err := html.Render(&out, doc.Nodes[0]); err != nil {
		return nil, err
	}
	found := marks[:0]
	for i, k := range marks {
		if k.from = bytes.Index(out.Bytes(), []byte(word(i))); k.from >= 0 {
			k.to = k.from + len(word(i))
			found = append(found, k)
		}
	}
	return cut(out.Bytes(), found, groups), nil
}
