package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// Attr is one attribute of an object, in the units of pipeline.hcl.
type Attr struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// the server's own form, where Value is a friendlier one: "604800000" for "7d"
	Raw    string `json:"raw,omitempty"`
	Secret bool   `json:"secret,omitempty"` // Value is a salted hash: compared, stored and never shown
	// live only: the value is not set on the object but comes from here ("broker default")
	Origin string `json:"origin,omitempty"`
	// wanted only: why a declared secret has no value; it compares equal, and is noted
	Unset string `json:"unset,omitempty"`
}

// State is an object as attributes, in the order in which they are shown. A nil *State is an object that does not
// exist.
type State struct {
	Attrs []Attr `json:"attrs"`
	// ID tells a live object with data from a later one of the same name: Kafka's topic id, PostgreSQL's oid. "" is not
	// known.
	ID string `json:"id,omitempty"`
}

// Set adds an attribute, or replaces the one of its name.
func (s *State) Set(a Attr) {
	if i := s.index(a.Name); i >= 0 {
		s.Attrs[i] = a
		return
	}
	s.Attrs = append(s.Attrs, a)
}

// Get returns the attribute of a name.
func (s *State) Get(name string) (Attr, bool) {
	if i := s.index(name); i >= 0 {
		return s.Attrs[i], true
	}
	return Attr{}, false
}

func (s *State) index(name string) int {
	if s == nil {
		return -1
	}
	return slices.IndexFunc(s.Attrs, func(a Attr) bool { return a.Name == name })
}

// Fingerprint identifies a state: "none" for a missing object. Attributes that are not set on the object do not count,
// so that a new broker default is no change of the object.
func (s *State) Fingerprint() string {
	if s == nil {
		return "none"
	}
	set := map[string]string{}
	for _, a := range s.Attrs {
		if a.Origin == "" && a.Unset == "" {
			set[a.Name] = a.Value
		}
	}
	text, _ := json.Marshal(set) //nolint:errchkjson // a map of strings; its keys come out sorted
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// Cause says why an attribute differs.
type Cause string

// The causes.
const (
	Intent Cause = "intent" // pipeline.hcl says something else than what is live
	Drift  Cause = "drift"  // what the last apply set was changed outside; apply sets it back
	Both   Cause = "both"   // changed outside, and pipeline.hcl moved too
	Reset  Cause = "reset"  // it left pipeline.hcl; apply takes it off the object
)

// Diff is one attribute that differs. Old is the live value, New the wanted one; "" means absent.
type Diff struct {
	Name    string `json:"name"`
	Old     string `json:"old,omitempty"`
	New     string `json:"new,omitempty"`
	OldRaw  string `json:"old_raw,omitempty"`
	NewRaw  string `json:"new_raw,omitempty"`
	Cause   Cause  `json:"cause"`
	Applied string `json:"applied,omitempty"` // what the last apply had set, where that is neither Old nor New
	Origin  string `json:"origin,omitempty"`  // of Old
	Secret  bool   `json:"secret,omitempty"`
}

// Compare is the three-way difference of an object that exists: what the last apply set (nil: nobody's mark is on it),
// what is live, and what is wanted. extra are live attributes that nobody declares.
func Compare(last, live, want *State) (diffs []Diff, extra []Attr) {
	for _, w := range want.Attrs {
		have, there := live.Get(w.Name)
		if w.Unset != "" || have.Value == w.Value && (there || w.Secret) { // "" is a secret that is given up
			continue
		}
		d := Diff{
			Name: w.Name, New: w.Value, NewRaw: w.Raw, Old: have.Value, OldRaw: have.Raw, Origin: have.Origin,
			Cause: Intent, Secret: w.Secret || have.Secret,
		}
		if was, known := last.Get(w.Name); known && was.Value != have.Value {
			d.Cause = Drift
			if was.Value != w.Value {
				d.Cause, d.Applied = Both, was.Value
			}
		}
		diffs = append(diffs, d)
	}
	for _, h := range live.Attrs {
		if _, wanted := want.Get(h.Name); wanted || h.Origin != "" {
			continue
		}
		was, ours := last.Get(h.Name)
		if !ours || h.Secret { // only a written null gives a secret up
			extra = append(extra, h)
			continue
		}
		d := Diff{Name: h.Name, Old: h.Value, OldRaw: h.Raw, Cause: Reset, Secret: h.Secret}
		if was.Value != h.Value {
			d.Applied = was.Value
		}
		diffs = append(diffs, d)
	}
	return diffs, extra
}
