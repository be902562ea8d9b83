package cli

import (
	"slices"
	"strings"
	"testing"
)

// A flag's whole name may have one dash, as in Terraform; everything else is left as it is written.
func TestLongFlags(t *testing.T) {
	for args, want := range map[string]string{
		"plan -out x.plan -json":                   "plan --out x.plan --json",
		"plan -out=x.plan -detailed-exitcode":      "plan --out=x.plan --detailed-exitcode",
		"plan -target topic.a -target=topic.b":     "plan --target topic.a --target=topic.b",
		"apply -auto-approve x.plan":               "apply --auto-approve x.plan",
		"-file p.hcl -no-color plan -verbose":      "--file p.hcl --no-color plan --verbose",
		"plan -var a=1 -var-file f":                "plan --var a=1 --var-file f",
		"plan -f p.hcl -v -o x":                    "plan -f p.hcl -v -o x",
		"plan -ox -fp.hcl":                         "plan -ox -fp.hcl",
		"plan --json --target topic.a":             "plan --json --target topic.a",
		"plan -help":                               "plan --help",
		"-help":                                    "--help",
		"-version":                                 "--version",
		"plan -auto-approve":                       "plan -auto-approve", // apply has it, plan has not
		"-json plan":                               "-json plan",
		"destroy -confirm -target -target topic.a": "destroy --confirm -target --target topic.a", // the first is a value
		"plan -o -json -json":                      "plan -o -json --json",
		"plan -f -json":                            "plan -f -json",
		"fmt -check -- -check":                     "fmt --check -- -check",
		"fmt -":                                    "fmt -",
		"nonsense -json":                           "nonsense -json",
		"show -json -json=false":                   "show --json --json=false",
	} {
		e := &env{IO: IO{Version: "0.1.0"}}
		if got := longFlags(e.root(), strings.Fields(args)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %s, want %s", args, strings.Join(got, " "), want)
		}
	}
}
