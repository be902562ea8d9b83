package simulate

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/decode"
	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// requestedMarkets lists the markets that a definition's query or subscription names, as the fixture's keys are
// written, in its order. They stand where a key of the fixture stands, or else where every word reads as a market. nil:
// it names none.
func requestedMarkets(def *spec.Definition, market func(string) (expr.Pair, error), keys []string) []string {
	groups := map[string][]string{} // words by the place where they stand, array indexes left out
	var walk func(place string, v any)
	walk = func(place string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(v)) {
				walk(place+"."+name, v[name])
			}
		case []any:
			for _, e := range v {
				walk(place+"[]", e)
			}
		case string:
			groups[place] = append(groups[place], strings.Split(v, ",")...)
		}
	}
	collect := func(place, text string) {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			v = text
		}
		walk(place, v)
	}
	if def.Poll != nil {
		for _, name := range slices.Sorted(maps.Keys(def.Poll.Query)) {
			collect("query."+name, def.Poll.Query[name])
		}
	} else {
		for _, text := range def.Stream.Subscribe {
			collect("subscribe", text)
		}
	}
	places := slices.Sorted(maps.Keys(groups))
	for _, place := range places {
		if slices.ContainsFunc(groups[place], func(w string) bool { return slices.Contains(keys, w) }) {
			return unique(groups[place])
		}
	}
	for _, place := range places { // "btcusdt@ticker" for BTCUSDT
		for _, w := range groups[place] {
			for _, key := range keys {
				before, after, ok := cutFold(w, key)
				if !ok {
					continue
				}
				var out []string
				for _, w := range groups[place] {
					if w, ok := strings.CutPrefix(w, before); ok {
						if w, ok := strings.CutSuffix(w, after); ok && w != "" {
							out = append(out, sameCase(w, key))
						}
					}
				}
				return unique(out)
			}
		}
	}
	for _, place := range places {
		if len(keys) > 0 && !slices.ContainsFunc(groups[place], func(w string) bool {
			return !alike(market, w, keys[0])
		}) {
			return unique(groups[place])
		}
	}
	return nil
}

func cutFold(word, key string) (before, after string, ok bool) {
	i := strings.Index(strings.ToLower(word), strings.ToLower(key))
	if i < 0 || key == "" || i+len(key) > len(word) {
		return "", "", false
	}
	return word[:i], word[i+len(key):], true
}

func sameCase(word, key string) string {
	switch key {
	case strings.ToUpper(key):
		return strings.ToUpper(word)
	case strings.ToLower(key):
		return strings.ToLower(word)
	}
	return word
}

const separators = "/-_:"

// alike tells whether a word is a market in the way in which key is written.
func alike(market func(string) (expr.Pair, error), word, key string) bool {
	i, j := strings.IndexAny(word, separators), strings.IndexAny(key, separators)
	if (i < 0) != (j < 0) || i >= 0 && word[i] != key[j] || word != sameCase(word, key) {
		return false
	}
	_, err := market(word)
	return err == nil
}

func unique(words []string) []string {
	var out []string
	for _, w := range words {
		if w != "" && !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// templateOf picks the record that a missing market is made from: one of the same base, or else any, at a price of its
// own.
func templateOf(market func(string) (expr.Pair, error), wanted string, keys []string) (i int, scale float64) {
	p, err := market(wanted)
	for i, key := range keys {
		if k, e := market(key); err == nil && e == nil && k.Base == p.Base {
			return i, 1
		}
	}
	h := mix(hash(wanted))
	return int(h % uint64(len(keys))), math.Exp(2*float64(h>>32)/(1<<32) - 1)
}

// rename writes another market into a record, wherever the key stands as a JSON string or a member's name.
func rename(text []byte, from, to string) []byte {
	quote := func(s string) []byte {
		b, err := json.Marshal(s)
		if err != nil {
			return nil
		}
		return b
	}
	return bytes.ReplaceAll(text, quote(from), quote(to))
}

// chunks cuts a reply into what comes before its records, each record with its name, and what follows. ok is false when
// the records are no list or keyed object, or lie apart.
func chunks(body []byte, pieces []decode.Piece, keyed bool) (head []byte, parts [][]byte, tail []byte, ok bool) {
	end := -1
	for _, p := range pieces {
		from := cap(body) - cap(p.Value)
		to := from + len(p.Value)
		if from < 0 || to > len(body) {
			return nil, nil, nil, false
		}
		if keyed {
			from = len(bytes.TrimRight(body[:from], " \t\r\n"))
			from = len(bytes.TrimRight(body[:from-1], " \t\r\n")) // the colon
			for from -= 2; from > 0 && (body[from] != '"' || body[from-1] == '\\'); from-- {
			}
		}
		before := bytes.TrimRight(body[:max(from, 0)], " \t\r\n")
		opening := byte('[')
		if keyed {
			opening = '{'
		}
		want := opening
		if end >= 0 {
			want = ','
		}
		if len(before) == 0 || before[len(before)-1] != want {
			return nil, nil, nil, false
		}
		if end < 0 {
			head = body[:from]
		}
		parts, end = append(parts, body[from:to]), to
	}
	if end < 0 {
		return nil, nil, nil, false
	}
	return head, parts, body[end:], true
}

// join is the way back from chunks.
func join(head []byte, parts [][]byte, tail []byte) []byte {
	out := append([]byte(nil), head...)
	out = append(out, bytes.Join(parts, []byte(","))...)
	return append(out, tail...)
}
