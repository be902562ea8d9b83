package load

import (
	"bytes"
	"strings"
	"testing"
)

// TestTimeoutLongerThanTheInterval: it is told, and hinders nothing.
func TestTimeoutLongerThanTheInterval(t *testing.T) {
	files := base(t)
	if _, d := Load(files, "pipeline.hcl", Options{}); len(d.Diags) > 0 {
		t.Fatal(report(d))
	}
	files["pipeline.hcl"].Data = bytes.Replace(files["pipeline.hcl"].Data, []byte(`interval   = "1h"`), []byte(`interval   = "5s"`), 1)
	p, d := Load(files, "pipeline.hcl", Options{})
	if d.HasErrors() || p == nil {
		t.Fatal(report(d))
	}
	const want = `Warning: Timeout longer than the interval
  pipeline.hcl:51:16, in source "page":
    51 |   interval   = "5s"
       |                ^^^^
  A reply may take 10s (timeout of the definition's poll block)`
	if got := report(d); !strings.HasPrefix(got, want) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
