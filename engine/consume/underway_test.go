package consume_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/store"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// hungCommit is a database that answers a commit when it is told to, and says nothing before.
type hungCommit struct {
	consume.Store
	answer chan struct{}
}

func (h hungCommit) Commit(ctx context.Context, t *store.Target, fence store.Fence, b *store.Batch) error {
	select {
	case <-h.answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	return h.Store.Commit(ctx, t, fence, b)
}

// TestHungCommitIsTold while it hangs: its error, if it ever has one, is a minute away.
func TestHungCommitIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, "binance", 1, "", true)
	h := hungCommit{r.store, make(chan struct{})}
	w, err := consume.New(r.src, h, r.clients(), consume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	defer func() { cancel(); <-done }()
	now := time.Now().Truncate(time.Millisecond)
	r.send(now, 0, 10)
	r.until("it says so", func() bool {
		return strings.HasPrefix(w.Stats().Blocked, "the database has not answered a commit of partition 0, under way since ")
	})
	if s := w.Stats(); s.Rows != 0 || !s.Newest.IsZero() {
		t.Errorf("%+v", s)
	}
	close(h.answer)
	r.until("it goes on", func() bool { return w.Stats().Blocked == "" && w.Stats().Rows == 10 })
	if got, want := w.Stats().Newest.Format(time.RFC3339Nano), r.text("SELECT to_char(max(time) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.USZ') FROM raw_crypto_data"); strings.TrimRight(strings.TrimSuffix(want, "Z"), "0") != strings.TrimRight(strings.TrimSuffix(got, "Z"), "0") {
		t.Errorf("the newest sample is of %s, not %s", want, got)
	}
}

// TestHungBrokerIsTold, likewise.
func TestHungBrokerIsTold(t *testing.T) {
	t.Parallel()
	cluster := testkit.EmbeddedKafka(t)
	r := newRig(t, "binance", 1, cluster.ListenAddrs()[0], true)
	w, _ := r.runs(consume.Options{})
	r.send(time.Now(), 0, 10)
	r.until("ten rows", func() bool { return w.Stats().Rows == 10 && w.Stats().Blocked == "" })
	free := make(chan struct{})
	cluster.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.SleepControl(func() { <-free })
		return nil, nil, false
	})
	r.until("it says so", func() bool { return strings.Contains(w.Stats().Blocked, "Kafka has not answered") })
	close(free)
	r.until("it goes on", func() bool { return w.Stats().Blocked == "" })
}
