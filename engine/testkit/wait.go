package testkit

import (
	"context"
	"testing"
	"time"
)

// Patience is how long a test waits for what must come about. A machine may be busy with other work: no shorter limit
// may fail a test, and one that passes does not wait that long.
const Patience = 2 * time.Minute

// Eventually asks until wrong returns nil. After Patience it ends the test with the last error.
func Eventually(t testing.TB, wrong func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(Patience); ; <-tick.C {
		err := wrong()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %s: %v", Patience, err)
		}
	}
}

// Receive returns the next value of a channel, or the zero value once it is closed. After Patience it ends the test and
// names what did not come.
func Receive[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(Patience):
		t.Fatalf("after %s: no %s", Patience, what)
		panic("unreachable")
	}
}

// Context is the context of a test that ends after Patience: for calls that must return, and would wait for ever.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}
