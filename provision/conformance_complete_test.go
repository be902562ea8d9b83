package provision_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/provision"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

func subjects() []subject {
	return slices.Concat(kafkaSubjects(), tableSubjects(), databaseSubjects(), timescaleSubjects(), grafanaSubjects())
}

// Fields that have no case, and why.
var exempt = map[string]string{
	"Column.Unit":       "it tells simulate and readers what a number measures; nothing is provisioned",
	"View.QueryAt":      "where the query stands, for messages",
	"Aggregate.QueryAt": "where the query stands, for messages",
	"Alert.QueryAt":     "where the query stands, for messages",
	"Dashboard.File":    "where the JSON stands; what is in it is Dashboard.JSON",
	"Source.Offset":     "when the engine polls; nothing is provisioned",
	"Source.MaxAge":     "which records the engine takes; nothing is provisioned",
	"Source.Jitter":     "when the engine polls; nothing is provisioned",
}

// Lists of a pipeline that are no resources, and why.
var noResource = map[string]string{
	"Rollups": "the engine runs them; nothing is provisioned",
	"Removed": "each subject ends with one",
}

// What the language can say has a case here: an attribute or a block that is new fails this until it has one.
func TestConformanceIsComplete(t *testing.T) {
	t.Parallel()
	kinds, changed, drifted := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range subjects() {
		kind, _, _ := strings.Cut(s.address, ".")
		kinds[kind] = true
		for _, a := range s.attributes {
			for code := range strings.FieldsSeq(a.codes + " " + a.driftCodes + " " + s.removed) {
				if _, is := plan.FindCode(provision.Codes(), code); !is {
					t.Errorf("%s, %s: there is no code %s", s.kind, a.fields, code)
				}
			}
			if len(a.edit) > 0 && len(a.shows) == 0 || a.drift != nil && len(a.driftShows) == 0 || a.drift != nil && a.fixed != "" {
				t.Errorf("%s, %s: an edit or a drift shows nothing, or what is fixed drifts", s.kind, a.fields)
			}
			for f := range strings.FieldsSeq(a.fields) {
				changed[f] = changed[f] || len(a.edit) > 0
				drifted[f] = drifted[f] || a.drift != nil || a.fixed != ""
			}
		}
	}
	known := map[string]bool{}
	var walk func(of reflect.Type, resource bool)
	walk = func(of reflect.Type, resource bool) {
		for f := range of.Fields() {
			name := of.Name() + "." + f.Name
			if f.Type == reflect.TypeFor[hcl.Range]() || resource && f.Name == "Name" || known[name] { // where it stands, and which one it is
				continue
			}
			known[name] = true
			if exempt[name] == "" && (!changed[name] || !drifted[name]) {
				t.Errorf("spec.%s: a case with an edit %t, a case with a drift %t; want both, or a reason among the exempt", name, changed[name], drifted[name])
			}
			elem := f.Type
			for elem.Kind() == reflect.Pointer || elem.Kind() == reflect.Slice {
				elem = elem.Elem()
			}
			// A reference to another resource is followed there; of a definition the engine's own table has two texts.
			_, another := reflect.TypeFor[spec.Pipeline]().FieldByName(elem.Name() + "s")
			if elem.Kind() == reflect.Struct && elem != reflect.TypeFor[spec.Secret]() && elem != reflect.TypeFor[spec.Definition]() && !another {
				walk(elem, false)
			}
		}
	}
	lists := reflect.TypeFor[spec.Pipeline]()
	for i := range lists.NumField() {
		f := lists.Field(i)
		if f.Type.Kind() != reflect.Slice || noResource[f.Name] != "" {
			continue
		}
		walk(f.Type.Elem().Elem(), true)
		one := reflect.New(f.Type.Elem().Elem())
		one.Elem().FieldByName("Name").SetString("x")
		p := &spec.Pipeline{Grafana: &spec.Grafana{URL: "http://localhost:1", Auth: spec.NewSecret("x")}}
		reflect.ValueOf(p).Elem().Field(i).Set(reflect.Append(reflect.Zero(f.Type), one))
		w, err := provision.NewStack(p, provision.Clients{Kafka: client(t, "localhost:1")})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range w.Resources() {
			if kind, _, _ := strings.Cut(r.Address(), "."); !kinds[kind] {
				t.Errorf("%s: no subject is a %s", f.Name, kind)
			}
		}
		w.Close()
	}
	for name := range changed {
		if !known[name] {
			t.Errorf("a case is of %s, which package spec does not have", name)
		}
	}
	for name, why := range exempt {
		if !known[name] || changed[name] || why == "" {
			t.Errorf("%s is exempt: known %t, with a case %t, reason %q", name, known[name], changed[name], why)
		}
	}
}
