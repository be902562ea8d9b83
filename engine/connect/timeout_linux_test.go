package connect_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// TestPostgresThatIsGone: the kernel ends a connection whose other side is silent for a minute. Sockets of the machine itself
// have no such thing.
func TestPostgresThatIsGone(t *testing.T) {
	t.Parallel()
	cfg, err := connect.Postgres(spec.Database{URL: spec.NewSecret("postgres://me:geheim@db/m")})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := cfg.ConnConfig.DialFunc(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for option, most := range map[int]int{unix.TCP_USER_TIMEOUT: int(time.Minute.Milliseconds()), unix.TCP_KEEPIDLE: 20, unix.TCP_KEEPINTVL: 10, unix.TCP_KEEPCNT: 4} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil || got != most {
				t.Errorf("option %d: %d, %v, want %d", option, got, err, most)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	local, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = local.Close() }()
	u, err := cfg.ConnConfig.DialFunc(t.Context(), "unix", local.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = u.Close()
}
