package record

import "testing"

// Records whose key failed are each of their own: one may not stand for another.
func TestIdentity(t *testing.T) {
	t.Parallel()
	a, b := Record{Fault: "x", Value: []byte("1")}, Record{Fault: "x", Value: []byte("2")}
	if a.Identity() == b.Identity() || a.Identity() == (Record{}).Identity() {
		t.Error("records without a key are taken for one another")
	}
	if (Record{Key: "A", Value: []byte("1")}).Identity() != (Record{Key: "A", Value: []byte("2")}).Identity() {
		t.Error("one market's records are not")
	}
}
