package plan

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Limits of a consent that are no count.
const (
	All     int64 = -1 // whatever it is, also what could not be counted
	AsShown int64 = -2 // as many as this plan shows, and what Room adds
)

// Consent agrees to what one code loses of one object, up to a number.
type Consent struct {
	Code    string `json:"code"`
	Address string `json:"address"`
	Limit   int64  `json:"limit"` // All, or how many at most
}

var consentForm = regexp.MustCompile(`^(?i)(CV-[A-Z]\d{2})@([a-z]+\.[a-z][a-z0-9_]*)(?:=(all|[0-9]+))?$`)

// ParseConsent reads CODE@ADDRESS, CODE@ADDRESS=NUMBER or CODE@ADDRESS=all, of one of the codes.
func ParseConsent(text string, codes []Code) (Consent, error) {
	m := consentForm.FindStringSubmatch(text)
	if m == nil {
		return Consent{}, fmt.Errorf("write CODE@ADDRESS=NUMBER, as the plan shows it: --allow " +
			"CV-K07@topic.binance=110")
	}
	code, known := FindCode(codes, m[1])
	switch {
	case !known:
		return Consent{}, fmt.Errorf("there is no code %s", m[1])
	case code.Class != Destroys:
		return Consent{}, fmt.Errorf("%s is %s and needs no consent", code.ID, code.Class)
	}
	k := Consent{Code: code.ID, Address: m[2], Limit: AsShown}
	switch {
	case strings.EqualFold(m[3], "all"):
		k.Limit = All
	case m[3] != "":
		var err error
		if k.Limit, err = strconv.ParseInt(m[3], 10, 64); err != nil {
			return Consent{}, fmt.Errorf("%s is too large a number: write =all", m[3])
		}
	}
	return k, nil
}

// String is the consent as --allow reads it.
func (k Consent) String() string {
	switch k.Limit {
	case AsShown:
		return k.Code + "@" + k.Address
	case All:
		return k.Code + "@" + k.Address + "=all"
	}
	return fmt.Sprintf("%s@%s=%d", k.Code, k.Address, k.Limit)
}

// Room is how much of a loss is agreed to by one who was shown it: what is counted grows by itself, so that it is 10 %
// more, up to the next number of two digits. Objects of Grafana are as many as were shown.
func (l Loss) Room() int64 {
	if !l.Known {
		return All
	}
	if l.Unit == Objects || l.Count <= 0 {
		return max(l.Count, 0)
	}
	if l.Count > math.MaxInt64/11 {
		return math.MaxInt64
	}
	n, step := (l.Count*11+9)/10, int64(1)
	for n/step >= 100 {
		step *= 10
	}
	return (n + step - 1) / step * step
}

// Lost is what the findings of a code lose together; false when there is none.
func (c Change) Lost(code string) (Loss, bool) {
	out, found := Loss{Unit: Objects, Known: true}, false
	for _, f := range c.Findings {
		if f.Code != code || f.Class != Destroys {
			continue
		}
		found = true
		if f.Loss == nil { // the object itself
			out.Count++
			continue
		}
		out.Unit, out.Count, out.Bytes = f.Loss.Unit, out.Count+f.Loss.Count, out.Bytes+f.Loss.Bytes
		out.Known = out.Known && f.Loss.Known
	}
	return out, found
}

// Needs lists the consents that would let the change through, each with its number.
func (c Change) Needs() (out []Consent) {
	for _, f := range c.Findings {
		if f.Class != Destroys || slices.ContainsFunc(out, func(k Consent) bool { return k.Code == f.Code }) {
			continue
		}
		loss, _ := c.Lost(f.Code)
		out = append(out, Consent{Code: f.Code, Address: c.Address, Limit: loss.Room()})
	}
	return out
}

// Consents are what the user agreed to lose.
type Consents []Consent

// Limit is the largest one of an address and a code; false when there is no consent.
func (k Consents) Limit(code, address string) (limit int64, given bool) {
	for _, c := range k {
		if c.Code != code || c.Address != address {
			continue
		}
		if c.Limit == All {
			return All, true
		}
		limit, given = max(limit, c.Limit), true
	}
	return limit, given
}

// AsShown puts numbers to the consents that have none: what the plan shows, and room for it to grow.
func (k Consents) AsShown(changes []Change) Consents {
	out := slices.Clone(k)
	for i, c := range out {
		if c.Limit != AsShown {
			continue
		}
		out[i].Limit = 0
		j := slices.IndexFunc(changes, func(x Change) bool { return x.Address == c.Address })
		if j < 0 {
			continue
		}
		if loss, found := changes[j].Lost(c.Code); found && loss.Known {
			out[i].Limit = loss.Room()
		}
	}
	return out
}

// covers tells whether a consent agrees to a loss.
func (k Consents) covers(code, address string, loss Loss) bool {
	limit, given := k.Limit(code, address)
	return given && (limit == All || loss.Known && loss.Count <= limit)
}

// Missing lists the destroying findings that are not agreed to, or not to that much.
func (k Consents) Missing(c Change) (out []Finding) {
	for _, f := range c.Findings {
		if f.Class != Destroys {
			continue
		}
		if loss, _ := c.Lost(f.Code); !k.covers(f.Code, c.Address, loss) {
			out = append(out, f)
		}
	}
	return out
}

// Some tells whether a part of the change may be made: what lacks consent are attributes, and others differ, too.
func (k Consents) Some(c Change) bool {
	held := map[string]bool{}
	for _, f := range k.Missing(c) {
		if _, differs := c.Diff(f.Attr); !differs {
			return false
		}
		held[f.Attr] = true
	}
	return c.Action != Create && c.Action != Delete && len(held) < len(c.Diffs)
}

// Lacking says which consent a change lacks, and what was agreed to instead; "" when none.
func (k Consents) Lacking(c Change) string {
	missing := k.Missing(c)
	if len(missing) == 0 {
		return ""
	}
	code := missing[0].Code
	loss, _ := c.Lost(code)
	remedy := "--allow " + Consent{code, c.Address, loss.Room()}.String() + " agrees to it"
	limit, given := k.Limit(code, c.Address)
	switch {
	case !given:
		return code + " destroys data: " + remedy
	case !loss.Known:
		return code + " destroys data, and how much is not known: " + remedy
	}
	return fmt.Sprintf("%s destroys %s, and %s are agreed to: %s", code, loss.Counted(loss.Count), Amount(limit),
		remedy)
}

// Counted is a number of what the loss counts: "1,200 rows".
func (l Loss) Counted(n int64) string {
	if n == 1 {
		return "1 " + l.Unit
	}
	return Amount(n) + " " + l.Unit + "s"
}
