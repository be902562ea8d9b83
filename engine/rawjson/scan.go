// Package rawjson finds chosen values in JSON in one pass over the bytes, without building anything.
//
// A Tree holds the wanted paths. Scan walks the whole document once, checks its form, and notes for each path where its
// value lies. A worker maps hundreds of thousands of records a second this way; encoding/json needs three times as
// long. Like encoding/json, the last of two equal names wins. Numbers stay text.
package rawjson

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may nest.
const MaxDepth = 64

// Kind is the type of a JSON value. The zero Kind means that the path leads nowhere.
type Kind uint8

// The kinds.
const (
	Missing Kind = iota
	Null
	False
	True
	Number
	String
	Object
	Array
)

// Value is a value inside the scanned bytes: it lives as long as they do.
type Value struct {
	Kind    Kind
	Escaped bool   // String: Raw holds escapes or bytes that Text must mend
	Raw     []byte // as written; a String without its quotes
}

// SyntaxError is a document that is not JSON.
type SyntaxError struct {
	Offset int
	Reason string
}

// Error says where and why.
func (e *SyntaxError) Error() string {
	return "not JSON at byte " + strconv.Itoa(e.Offset) + ": " + e.Reason
}

// Tree is a set of wanted paths.
type Tree struct {
	root  node
	count int
}

type node struct {
	slot     int   // 1 + index of the value; 0: only its children are wanted
	below    []int // slots of the children, cleared when a name comes twice
	names    []child
	elements []element
}

type child struct {
	name []byte
	*node
}

type element struct {
	index int
	*node
}

// Add wants the value at a path of names (string) and indexes (int), and returns its index in Scan's result.
func (t *Tree) Add(path []any) int {
	n, way := &t.root, []*node{&t.root}
	for _, step := range path {
		var next *node
		switch step := step.(type) {
		case string:
			i := slices.IndexFunc(n.names, func(c child) bool { return string(c.name) == step })
			if i < 0 {
				n.names = append(n.names, child{[]byte(step), &node{}})
				i = len(n.names) - 1
			}
			next = n.names[i].node
		case int:
			i := slices.IndexFunc(n.elements, func(e element) bool { return e.index == step })
			if i < 0 {
				n.elements = append(n.elements, element{step, &node{}})
				i = len(n.elements) - 1
			}
			next = n.elements[i].node
		}
		n = next
		way = append(way, n)
	}
	if n.slot == 0 {
		t.count++
		n.slot = t.count
		for _, w := range way {
			w.below = append(w.below, n.slot-1)
		}
	}
	return n.slot - 1
}

// Len returns the number of wanted values.
func (t *Tree) Len() int { return t.count }

// Scan checks src and fills out, of length Len, with the wanted values.
func (t *Tree) Scan(src []byte, out []Value) error {
	clear(out)
	s := scanner{src: src, out: out}
	i := s.space(0)
	if i == len(src) {
		return &SyntaxError{i, "it is empty"}
	}
	i, _ = s.value(i, &t.root, 0)
	if s.err != nil {
		return s.err
	}
	if i = s.space(i); i != len(src) {
		return &SyntaxError{i, "something follows the value"}
	}
	return nil
}

type scanner struct {
	src []byte
	out []Value
	err error
}

func (s *scanner) fail(i int, format string, args ...any) (int, Value) {
	if s.err == nil {
		reason := fmt.Sprintf(format, args...)
		if i >= len(s.src) {
			i, reason = len(s.src), "it is cut short"
		}
		s.err = &SyntaxError{i, reason}
	}
	return len(s.src), Value{}
}

func (s *scanner) space(i int) int {
	for i < len(s.src) {
		switch s.src[i] {
		case ' ', '\n', '\t', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

// value scans the value at i and returns the offset behind it. want may be nil.
func (s *scanner) value(i int, want *node, depth int) (int, Value) {
	if i >= len(s.src) {
		return s.fail(i, "")
	}
	var v Value
	start := i
	switch c := s.src[i]; {
	case c == '"':
		i, v = s.text(i)
	case c == '{' || c == '[':
		if depth >= MaxDepth {
			return s.fail(i, "nested deeper than %d", MaxDepth)
		}
		if c == '{' {
			v.Kind, i = Object, s.object(i, want, depth)
		} else {
			v.Kind, i = Array, s.array(i, want, depth)
		}
		v.Raw = s.src[start:i]
	case c == '-' || (c >= '0' && c <= '9'):
		i = s.number(i)
		v = Value{Kind: Number, Raw: s.src[start:i]}
	case c == 't':
		i, v.Kind = s.word(i, "true"), True
	case c == 'f':
		i, v.Kind = s.word(i, "false"), False
	case c == 'n':
		i, v.Kind = s.word(i, "null"), Null
	default:
		return s.fail(i, "a value cannot begin with %q", rune(c))
	}
	if v.Raw == nil && v.Kind != String {
		v.Raw = s.src[start:i]
	}
	if want != nil && want.slot > 0 && s.err == nil {
		s.out[want.slot-1] = v
	}
	return i, v
}

func (s *scanner) word(i int, w string) int {
	if len(s.src)-i < len(w) || string(s.src[i:i+len(w)]) != w {
		i, _ = s.fail(i, "want %s", w)
		return i
	}
	return i + len(w)
}

func (s *scanner) number(i int) int {
	src := s.src
	if src[i] == '-' {
		i++
	}
	switch {
	case i < len(src) && src[i] == '0':
		i++
	case i < len(src) && src[i] >= '1' && src[i] <= '9':
		for i < len(src) && src[i]-'0' <= 9 {
			i++
		}
	default:
		i, _ = s.fail(i, "a number needs a digit")
		return i
	}
	if i < len(src) && src[i] == '.' {
		i++
		if i >= len(src) || src[i]-'0' > 9 {
			i, _ = s.fail(i, "a digit must follow the point")
			return i
		}
		for i < len(src) && src[i]-'0' <= 9 {
			i++
		}
	}
	if i < len(src) && src[i]|0x20 == 'e' {
		i++
		if i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		if i >= len(src) || src[i]-'0' > 9 {
			i, _ = s.fail(i, "a digit must follow the exponent")
			return i
		}
		for i < len(src) && src[i]-'0' <= 9 {
			i++
		}
	}
	return i
}

// special marks the bytes that end or complicate a string.
var special = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	for c := 0x80; c < 256; c++ {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

func (s *scanner) text(i int) (int, Value) {
	i++
	start, escaped := i, false
	for i < len(s.src) {
		c := s.src[i]
		if !special[c] {
			i++
			continue
		}
		switch {
		case c == '"':
			return i + 1, Value{Kind: String, Escaped: escaped, Raw: s.src[start:i]}
		case c == '\\':
			escaped = true
			if i+1 >= len(s.src) {
				return s.fail(len(s.src), "")
			}
			switch s.src[i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				if _, ok := hex4(s.src, i+2); !ok {
					if i+6 > len(s.src) {
						return s.fail(len(s.src), "")
					}
					return s.fail(i, `\u needs four hex digits`)
				}
				i += 6
			default:
				return s.fail(i, "unknown escape")
			}
		case c < 0x20:
			return s.fail(i, "a control character in a string")
		default: // not ASCII: Text mends what is not UTF-8
			r, size := utf8.DecodeRune(s.src[i:])
			if r == utf8.RuneError && size == 1 {
				escaped = true
			}
			i += size
		}
	}
	return s.fail(i, "")
}

func hex4(src []byte, i int) (rune, bool) {
	if i+4 > len(src) {
		return 0, false
	}
	var r rune
	for _, c := range src[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

func (s *scanner) object(i int, want *node, depth int) int {
	i = s.space(i + 1)
	if i < len(s.src) && s.src[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(s.src) || s.src[i] != '"' {
			i, _ = s.fail(i, "want a name in quotes")
			return i
		}
		var name Value
		if i, name = s.text(i); s.err != nil {
			return i
		}
		if i = s.space(i); i >= len(s.src) || s.src[i] != ':' {
			i, _ = s.fail(i, "want : after a name")
			return i
		}
		i = s.space(i + 1)
		var next *node
		if want != nil && len(want.names) > 0 {
			next = s.find(want, name)
		}
		if i, _ = s.value(i, next, depth+1); s.err != nil {
			return i
		}
		i = s.space(i)
		if i < len(s.src) && s.src[i] == ',' {
			i = s.space(i + 1)
			continue
		}
		if i < len(s.src) && s.src[i] == '}' {
			return i + 1
		}
		i, _ = s.fail(i, "want , or } in an object")
		return i
	}
}

func (s *scanner) find(want *node, name Value) *node {
	raw := name.Raw
	if name.Escaped {
		raw = name.Text(nil)
	}
	for k := range want.names {
		if c := &want.names[k]; len(c.name) == len(raw) && bytes.Equal(c.name, raw) {
			for _, slot := range c.below {
				s.out[slot] = Value{}
			}
			return c.node
		}
	}
	return nil
}

func (s *scanner) array(i int, want *node, depth int) int {
	i = s.space(i + 1)
	if i < len(s.src) && s.src[i] == ']' {
		return i + 1
	}
	for index := 0; ; index++ {
		var next *node
		if want != nil {
			for k := range want.elements {
				if want.elements[k].index == index {
					next = want.elements[k].node
				}
			}
		}
		if i, _ = s.value(i, next, depth+1); s.err != nil {
			return i
		}
		i = s.space(i)
		if i < len(s.src) && s.src[i] == ',' {
			i = s.space(i + 1)
			continue
		}
		if i < len(s.src) && s.src[i] == ']' {
			return i + 1
		}
		i, _ = s.fail(i, "want , or ] in an array")
		return i
	}
}

// Each calls f for each element of an Array (name nil) or member of an Object, in order. v comes from Scan, so its form
// is known to be good.
func (v Value) Each(f func(name []byte, v Value) error) error {
	s := scanner{src: v.Raw}
	i := s.space(1)
	for i < len(s.src)-1 {
		var name []byte
		if v.Kind == Object {
			var n Value
			i, n = s.text(i)
			name = n.Text(nil)
			i = s.space(s.space(i) + 1)
		}
		var e Value
		i, e = s.value(i, nil, 0)
		if s.err != nil {
			return s.err
		}
		if e.Kind == String { // a caller stores the element itself: with its quotes
			e.Raw = v.Raw[i-len(e.Raw)-2 : i]
		}
		if err := f(name, e); err != nil {
			return err
		}
		i = s.space(s.space(i) + 1)
	}
	return nil
}

// Text returns a String's text: escapes resolved, what is not UTF-8 replaced. It appends to buf only when it must.
func (v Value) Text(buf []byte) []byte {
	if !v.Escaped {
		return v.Raw
	}
	buf = buf[:0]
	for i := 0; i < len(v.Raw); {
		c := v.Raw[i]
		switch {
		case c != '\\':
			r, size := utf8.DecodeRune(v.Raw[i:])
			buf = utf8.AppendRune(buf, r)
			i += size
		case v.Raw[i+1] == 'u':
			r, _ := hex4(v.Raw, i+2)
			i += 6
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if i+6 <= len(v.Raw) && v.Raw[i] == '\\' && v.Raw[i+1] == 'u' {
					low, _ = hex4(v.Raw, i+2)
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			buf = utf8.AppendRune(buf, r)
		default:
			e := v.Raw[i+1]
			if k := bytes.IndexByte([]byte("bfnrt"), e); k >= 0 {
				e = "\b\f\n\r\t"[k]
			}
			buf = append(buf, e)
			i += 2
		}
	}
	return buf
}
