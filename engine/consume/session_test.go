package consume

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// The group may assign partitions while NewClient still runs: then the session has no client yet.
func TestAssignedBeforeTheClientIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := &spec.Source{Name: "a", Topic: &spec.Topic{Name: "a"}}
		s := &session{w: &Worker{src: src}, ready: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		var err error
		ended := false
		go func() {
			_, err = s.assign(ctx, map[string]map[int32]kgo.Offset{"a": {0: kgo.NewOffset()}})
			ended = true
		}()
		synctest.Wait()
		if ended {
			t.Errorf("it does not wait: %v", err)
		}
		cancel()
		synctest.Wait()
		if !ended || !errors.Is(err, context.Canceled) {
			t.Errorf("ended %t, %v", ended, err)
		}
	})
}
