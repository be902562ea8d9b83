package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// errSilent ends a pulse.
var errSilent = errors.New("no answer")

// pulse is a context that ends once nothing has happened for a while. How long the whole takes is not limited: a batch
// that is stored row by row takes its time.
type pulse struct {
	context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	patience time.Duration
}

func newPulse(ctx context.Context, patience time.Duration) *pulse {
	p := &pulse{patience: patience}
	p.Context, p.cancel = context.WithCancelCause(ctx)
	p.timer = time.AfterFunc(patience, func() { p.cancel(errSilent) })
	return p
}

// beat is called when something happened.
func (p *pulse) beat() { p.timer.Reset(p.patience) }

func (p *pulse) stop() {
	p.timer.Stop()
	p.cancel(nil)
}

// fault tells of the silence in place of what it led to.
func (p *pulse) fault(err error) error {
	if !errors.Is(context.Cause(p), errSilent) || !errors.Is(err, context.Canceled) || errors.Is(err, errAlready) {
		return err
	}
	return fmt.Errorf("%w for %s: is the connection dead, or a lock held?", errSilent, p.patience)
}

// reader beats while r is read.
func (p *pulse) reader(r io.Reader) io.Reader { return beating{p, r} }

type beating struct {
	p *pulse
	r io.Reader
}

func (b beating) Read(to []byte) (int, error) {
	b.p.beat()
	return b.r.Read(to)
}
