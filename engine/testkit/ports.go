package testkit

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports that servers of tests get: below those that systems give to clients (Linux from 32768, macOS from 49152), so
// that no connection that somebody makes can take one while its server is not up yet, or is killed.
const firstPort, lastPort = 10000, 32000

// reserved holds the ports of this process. A reservation is the UDP port of the same number: servers do not need it,
// the test kit of every other process looks for it, and the system gives it back when the process ends, however that
// happens.
var reserved struct {
	sync.Mutex
	twins []net.PacketConn
}

// reservePorts returns n different TCP ports of 127.0.0.1 that are this process's until it ends.
func reservePorts(n int) ([]int, error) {
	reserved.Lock()
	defer reserved.Unlock()
	var out []int
	var failed error
	for range 100 * n {
		if len(out) == n {
			return out, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // no secret
		twin, err := net.ListenPacket("udp4", loopback(port))
		if err != nil {
			failed = err
			continue
		}
		l, err := net.Listen("tcp4", loopback(port))
		if err != nil { // the server of another program
			failed = errors.Join(err, twin.Close())
			continue
		}
		reserved.twins = append(reserved.twins, twin)
		if err := l.Close(); err != nil {
			return nil, err
		}
		out = append(out, port)
	}
	return nil, failed
}
