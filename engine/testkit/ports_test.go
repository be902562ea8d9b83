package testkit

import (
	"net"
	"slices"
	"testing"
)

// A port is given once, stays ours while no server listens on it, and is none that the system gives to a client.
func TestReservePorts(t *testing.T) {
	t.Parallel()
	ports, err := reservePorts(300)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if n := len(slices.Compact(slices.Clone(ports))); n != 300 {
		t.Errorf("%d different ports of 300", n)
	}
	for _, port := range ports {
		l, err := net.Listen("tcp4", loopback(port))
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		if twin, err := net.ListenPacket("udp4", loopback(port)); err == nil {
			_ = twin.Close()
			t.Errorf("another process may reserve %d too", port)
		}
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if given := l.Addr().(*net.TCPAddr).Port; given >= firstPort && given < lastPort {
		t.Errorf("the system gives port %d by itself: reserve others", given)
	}
}
