package run

import (
	"cmp"
	"context"
	"errors"

	"github.com/cryptoviz/cryptoviz/engine/store"
)

// join takes a number among the instances, which a successor has again at once: its static name in the consumer groups,
// where its partitions wait for it, and the one under which the slots that it left unfinished are found.
func (e *Engine) join(ctx context.Context) (err error) {
	e.member, err = e.store.Join(ctx)
	if errors.Is(err, store.ErrPooled) {
		if e.opt.Instance == "" {
			e.log.Info("this instance has no name that outlives a crash: after one its topics wait for the end of its "+
				"session. --instance NAME gives it one", "reason", err.Error())
		}
		return nil
	}
	return err
}

// instance is the static name in the consumer groups; "" for none.
func (e *Engine) instance() string {
	if e.member == nil {
		return e.opt.Instance
	}
	return cmp.Or(e.opt.Instance, e.member.Name())
}

// renamed makes the workers join again under a name that no other instance has.
func (e *Engine) renamed(name string) {
	if e.opt.Instance != "" {
		return
	}
	for _, w := range e.workers {
		w.Rename(name)
	}
}
