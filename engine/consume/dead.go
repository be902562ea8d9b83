package consume

import (
	"maps"
	"sync"

	"github.com/cryptoviz/cryptoviz/engine/store"
)

// deadCount counts dead letters by their class.
type deadCount struct {
	mu sync.Mutex
	by map[string]int64
}

func (c *deadCount) add(dead []store.DeadLetter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range dead {
		if c.by == nil {
			c.by = map[string]int64{}
		}
		c.by[d.Class]++
	}
}

// counts has every class, also with none.
func (c *deadCount) counts() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]int64{}
	for _, class := range store.DeadClasses {
		out[class] = 0
	}
	maps.Copy(out, c.by)
	return out
}
