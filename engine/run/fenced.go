package run

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// fenced says what the broker's FENCED_INSTANCE_ID means: two instances of one name throw each other out of the groups,
// again and again.
type fenced struct {
	instance func() string
	log      *slog.Logger

	mu   sync.Mutex
	said time.Time
}

var _ kgo.HookGroupManageError = (*fenced)(nil)

// OnGroupManageError is called by each worker's client; what is wrong is said for all of them, and not each second.
func (f *fenced) OnGroupManageError(err error) {
	if !errors.Is(err, kerr.FencedInstanceID) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.said) >= time.Minute {
		f.said = now
		f.log.Error("another instance runs under the same name, and takes the topics from this one: stop one of them, "+
			"or give it another --instance, or another kafka.group_prefix if it is of another database", "instance",
			f.instance())
	}
}
