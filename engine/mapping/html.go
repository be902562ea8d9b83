package mapping

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

var errMissing = errors.New("the value is missing")

// htmlFields reads the declared fields out of one element's HTML.
type htmlFields struct {
	fields []spec.HTMLField
	slots  []int
}

func newHTMLFields(fields []spec.HTMLField, tree *rawjson.Tree) *htmlFields {
	h := &htmlFields{fields: fields}
	for _, f := range fields {
		h.slots = append(h.slots, tree.Add([]any{f.Name}))
	}
	return h
}

func (h *htmlFields) read(src []byte, out []rawjson.Value) error {
	clear(out)
	// A template accepts any element, also a row without its table.
	nodes, err := html.ParseFragment(bytes.NewReader(src), &html.Node{Type: html.ElementNode, Data: "template", DataAtom: atom.Template})
	if err != nil {
		return errors.New("not HTML: " + err.Error())
	}
	var root *goquery.Selection
	for _, n := range nodes {
		if n.Type == html.ElementNode {
			root = goquery.NewDocumentFromNode(n).Selection
			break
		}
	}
	if root == nil {
		return errors.New("not an HTML element")
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
