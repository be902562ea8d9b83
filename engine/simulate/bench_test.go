package simulate_test

import (
	"testing"

	"github.com/cryptoviz/cryptoviz/engine/simulate"
)

// BenchmarkReply is one poll of three markets over the socket, client included.
func BenchmarkReply(b *testing.B) {
	p := mustLoad(b, nil, nil)
	c := connect(b, serve(b, p, simulate.Options{}), source(b, p, "binance"))
	b.ReportAllocs()
	for b.Loop() {
		c.get()
	}
}
