package store_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/store"
)

// TestPauses: by the database's clock, the longer of two, and none that is over.
func TestPauses(t *testing.T) {
	s := newBench(t, store.Options{})
	for _, p := range []struct {
		name   string
		d      time.Duration
		reason string
	}{
		{"source a", 3 * time.Hour, "HTTP 403 Forbidden"},
		{"source a", time.Hour, "shorter"},
		{"source b", time.Hour, "shorter"},
		{"source b", 96 * time.Hour, "HTTP 418\x00"},
		{"budget c", -time.Hour, "over"},
	} {
		if err := s.Pause(t.Context(), p.name, p.d, p.reason); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	if err := s.Paused(t.Context(), func(name string, left time.Duration, reason string) {
		got[name] = fmt.Sprint(left.Round(time.Hour), " ", reason)
	}); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"source a": "3h0m0s HTTP 403 Forbidden", "source b": "96h0m0s HTTP 418�"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
