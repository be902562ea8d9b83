package kafka

import (
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cryptoviz/cryptoviz/engine/load"
)

// overlay is a folder with another pipeline.hcl.
type overlay struct {
	fs.FS
	pipeline string
}

func (o overlay) Open(name string) (fs.File, error) {
	if name == "pipeline.hcl" {
		return fstest.MapFS{name: {Data: []byte(o.pipeline)}}.Open(name)
	}
	return o.FS.Open(name)
}

// What Block writes, read by the language, is the topic as it is: the plan after import is empty.
func TestBlockDeclaresTheTopic(t *testing.T) {
	t.Parallel()
	w := oneBroker(t)
	const shipped = "../../pipeline.hcl"
	text, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for name, config := range map[string]map[string]string{
		"plain":  {},
		"worded": {retentionMs: "5400000", retentionBytes: "2147483648", cleanupPolicy: "delete,compact", compression: "zstd"},
		"odd":    {retentionMs: "-1", retentionBytes: "-1", maxMessage: "2000000", "min.cleanable.dirty.ratio": "0.25", "follower.replication.throttled.replicas": "0:1,1:1"},
		"tiny":   {retentionMs: "1", retentionBytes: "1000"},
		"huge":   {retentionMs: "9223372036854775807", "flush.ms": "9223372036854775807"},
	} {
		values := map[string]*string{}
		for k, v := range config {
			values[k] = &v
		}
		if _, err := w.admin.CreateTopic(t.Context(), 3, 1, values, name); err != nil {
			t.Fatal(err)
		}
		w.eventually(func() bool { return w.live(name) != nil })
		if blocks[name], err = Block(t.Context(), w.cluster, name); err != nil {
			t.Fatal(err)
		}
	}
	if want := "topic \"worded\" {\n  partitions      = 3\n  replication     = 1\n  retention       = \"1h30m\"\n  retention_bytes = \"2GiB\"\n  cleanup_policy  = \"compact,delete\"\n  compression     = \"zstd\"\n}\n"; blocks["worded"] != want {
		t.Errorf("%s\nwant\n%s", blocks["worded"], want)
	}
	for name, block := range blocks {
		p, d := load.Load(overlay{os.DirFS("../.."), string(text) + "\n" + block}, "pipeline.hcl", load.Options{})
		if d.HasErrors() {
			t.Errorf("%s: %v\n%s", name, d.Diags, block)
			continue
		}
		s := p.Topics[len(p.Topics)-1]
		if c := w.plan(w.cluster.Topic(s)); s.Name != name || len(c.Diffs)+len(c.Extra) > 0 {
			t.Errorf("%s: %v %v\n%s", name, c.Diffs, c.Extra, block)
		}
	}
	for name, want := range map[string]string{"a.b": "no place for this name", "missing": "does not exist"} {
		if _, err := Block(t.Context(), w.cluster, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFriendlyValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ key, value, want string }{
		{retentionMs, "604800000", "7d"},
		{retentionMs, "-1", "unlimited"},
		{retentionMs, "0", "0s"},
		{retentionMs, "90500", "1m30s500ms"},
		{retentionMs, "9223372036854775807", "9223372036854775807ms"},
		{retentionMs, "soon", "soon"},
		{retentionMs, "-7", "-7"},
		{retentionBytes, "1073741824", "1GiB"},
		{retentionBytes, "-1", "unlimited"},
		{retentionBytes, "1000", "1000"},
		{retentionBytes, "1536", "1536"},
		{retentionBytes, "2048", "2KiB"},
		{retentionBytes, "0", "0"},
		{cleanupPolicy, "", `""`},
		{minInsync, "2", "2"},
	} {
		if got := friendly(c.key, c.value); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.key, c.value, got, c.want)
		}
	}
}

func TestLowered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		before, after string
		want          bool
	}{{"7", "2", true}, {"2", "7", false}, {"7", "7", false}, {"-1", "7", true}, {"7", "-1", false}, {"-1", "-1", false}, {"", "7", false}, {"7", "x", false}} {
		if got := lowered(c.before, c.after); got != c.want {
			t.Errorf("%s -> %s: %v", c.before, c.after, got)
		}
	}
}
