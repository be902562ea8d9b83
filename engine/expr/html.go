package expr

import (
	"bytes"
	"errors"
	"strings"

	"github.com/PuerkitoBio/goquery"
	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/cryptoviz/cryptoviz/engine/rawjson"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// ErrMissing is a value that is needed and not there.
var ErrMissing = errors.New("the value is missing")

// HTMLFields reads the declared fields out of one element's HTML.
type HTMLFields struct {
	fields []spec.HTMLField
	slots  []int
}

// NewHTMLFields gives each field a slot in tree.
func NewHTMLFields(fields []spec.HTMLField, tree *rawjson.Tree) *HTMLFields {
	h := &HTMLFields{fields: fields}
	for _, f := range fields {
		h.slots = append(h.slots, tree.Add([]any{f.Name}))
	}
	return h
}

// element parses one element's HTML.
func element(src []byte) (*goquery.Selection, error) {
	// a page has these by itself, and a fragment none
	for _, tag := range []string{"html", "head", "body", "frameset"} {
		if n := len("<") + len(tag); len(src) > n && string(src[1:n]) == tag && bytes.IndexByte([]byte(" />"),
			src[n]) >= 0 {
			page, err := goquery.NewDocumentFromReader(bytes.NewReader(src))
			if err != nil {
				return nil, errors.New("not HTML: " + err.Error())
			}
			return page.Find(tag).First(), nil
		}
	}
	// A template accepts any element, also a row without its table.
	nodes, err := html.ParseFragment(bytes.NewReader(src), &html.Node{
		Type: html.ElementNode, Data: "template",
		DataAtom: atom.Template,
	})
	if err != nil {
		return nil, errors.New("not HTML: " + err.Error())
	}
	for _, n := range nodes {
		if n.Type == html.ElementNode {
			return goquery.NewDocumentFromNode(n).Selection, nil
		}
	}
	return nil, errors.New("not an HTML element")
}

func (h *HTMLFields) Read(src []byte, out []rawjson.Value) error {
	clear(out)
	root, err := element(src)
	if err != nil {
		return err
	}
	for i, f := range h.fields {
		sel := root
		if f.Select != "" {
			sel = root.Find(f.Select).First()
		}
		if sel.Length() == 0 {
			continue
		}
		var text string
		if f.Attr != "" {
			text = sel.AttrOr(f.Attr, "")
		} else {
			text = strings.Join(strings.Fields(sel.Text()), " ")
		}
		out[h.slots[i]] = rawjson.Value{Kind: rawjson.String, Raw: []byte(text)}
	}
	return nil
}
