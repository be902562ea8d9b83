package load

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
	"unicode"

	"github.com/cryptoviz/cryptoviz/engine/diag"
)

// hostile is one bundle that was made to do harm.
type hostile struct {
	name  string
	files fstest.MapFS
	env   map[string]string
	loads bool // it is strange, but right
	small bool // nothing in it can grow: its memory is not measured
}

const (
	hostileTime   = slowdown * 2 * time.Second
	hostileMemory = 256 << 20
)

// canary is in the environment of every hostile bundle, and in no text.
const canary = "c4nary-s3cret"

// swap returns the base with one piece of one file changed.
func swap(t testing.TB, file, old, piece string) fstest.MapFS {
	t.Helper()
	return swapIn(t, base(t), file, old, piece)
}

func swapIn(t testing.TB, files fstest.MapFS, file, old, piece string) fstest.MapFS {
	t.Helper()
	if strings.Count(string(files[file].Data), old) < 1 {
		t.Fatalf("%s has no %s", file, old)
	}
	files[file] = &fstest.MapFile{Data: []byte(strings.Replace(string(files[file].Data), old, piece, 1))}
	return files
}

// whole returns the base with another pipeline.hcl.
func whole(t testing.TB, src string) fstest.MapFS {
	files := base(t)
	files["pipeline.hcl"] = &fstest.MapFile{Data: []byte(src)}
	return files
}

func value(t testing.TB, piece string) fstest.MapFS {
	return swap(t, "pipeline.hcl", `["localhost:9092"]`, piece)
}

type group = func(testing.TB, func(hostile))

var (
	largeBundles = []group{large, manyObjects}
	otherBundles = []group{deep, encodings, names, growing}
)

// allHostile makes one bundle after the other: together they are large.
func allHostile(t testing.TB, groups []group, try func(hostile)) {
	for _, g := range groups {
		g(t, try)
	}
}

// heapSize is what the objects of the heap have, with those that are not collected yet.
func heapSize() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// heapPeak runs f and returns the largest heap that was seen meanwhile.
func heapPeak(f func()) uint64 {
	if heapSize() > hostileMemory/16 {
		runtime.GC() // what was before does not count
	}
	stop, done := make(chan struct{}), make(chan uint64)
	go func() {
		var peak uint64
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, heapSize())
			select {
			case <-stop:
				done <- peak
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(stop)
	return <-done
}

func (h hostile) load() (d *diag.Diagnostics, text, asJSON string) {
	env := func(name string) (string, bool) {
		if v, ok := h.env[name]; ok {
			return v, true
		}
		return "postgres://me:" + canary + "@localhost/cryptoviz", name == "DATABASE_URL"
	}
	_, d = Load(h.files, "pipeline.hcl", Options{Env: env, Version: "0.1.0"})
	var buf bytes.Buffer
	_ = d.JSON(&buf)
	return d, report(d), buf.String()
}

// full asks for every case of the tests that take a part of them otherwise, as .ci/run does.
var full = os.Getenv("CRYPTOVIZ_TEST_FULL") != ""

// TestHostile runs alone: it measures what the process needs. It takes a quarter of the bundles, each time another one, unless all
// are asked for.
func TestHostile(t *testing.T) {
	total, tried := 0, 0
	var slowest time.Duration
	var most uint64
	allHostile(t, append(slices.Clone(largeBundles), otherBundles...), func(h hostile) {
		if total++; !full && total%4 != 0 {
			return
		}
		tried++
		t.Run(h.name, func(t *testing.T) {
			var d *diag.Diagnostics
			var text, asJSON string
			began := cpuTime(t)
			load := func() { d, text, asJSON = h.load() }
			var peak uint64
			if h.small {
				load()
			} else {
				peak = heapPeak(load)
			}
			took := cpuTime(t) - began
			slowest, most = max(slowest, took), max(most, peak)
			if took > hostileTime {
				t.Errorf("took %s", took)
			}
			if peak > hostileMemory {
				t.Errorf("took %d MiB", peak>>20)
			}
			if d.HasErrors() == h.loads {
				t.Errorf("errors: %v, want %v\n%s", d.HasErrors(), !h.loads, text[:min(len(text), 2000)])
			}
			for _, diag := range d.Diags {
				if diag.Subject == nil {
					t.Errorf("no position: %s", diag)
				}
				if diag.EvalContext != nil || diag.Expression != nil {
					t.Errorf("carries values: %s", diag)
				}
			}
			if strings.Contains(text+asJSON, canary) {
				t.Error("a secret is in the text")
			}
			if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) }); i >= 0 {
				t.Errorf("the text has %q", text[i:min(i+10, len(text))])
			}
			if len(text) > 200_000 {
				t.Errorf("the text has %d bytes", len(text))
			}
		})
	})
	t.Logf("%d of %d bundles, slowest %s, largest heap %d MiB", tried, total, slowest.Round(time.Millisecond), most>>20)
	if total < 200 {
		t.Errorf("only %d bundles", total)
	}
}

// cpuTime is what this process has used: the machine may have other work.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
