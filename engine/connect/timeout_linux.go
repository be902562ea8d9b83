package connect

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// userTimeout bounds how long what was sent may stay unacknowledged: keepalive alone waits for the retransmissions, a
// quarter of an hour. A kernel that does not know it goes without.
func userTimeout(network, _ string, c syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60_000) //nolint:gosec // a file descriptor
	})
}
