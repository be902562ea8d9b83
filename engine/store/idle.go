package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// errSilent ends an idleContext.
var errSilent = errors.New("no answer")

// idleContext is a context that ends once nothing has happened for a while. How long the whole takes is not limited: a
// batch that is stored row by row takes its time.
type idleContext struct {
	context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	timeout time.Duration
}

func withIdleTimeout(ctx context.Context, patience time.Duration) *idleContext {
	p := &idleContext{timeout: patience}
	p.Context, p.cancel = context.WithCancelCause(ctx)
	p.timer = time.AfterFunc(patience, func() { p.cancel(errSilent) })
	return p
}

// active is called when something happened.
func (p *idleContext) active() { p.timer.Reset(p.timeout) }

func (p *idleContext) stop() {
	p.timer.Stop()
	p.cancel(nil)
}

// fault tells of the silence in place of what it led to.
func (p *idleContext) fault(err error) error {
	if !errors.Is(context.Cause(p), errSilent) || !errors.Is(err, context.Canceled) || errors.Is(err, errAlready) {
		return err
	}
	return fmt.Errorf("%w for %s: is the connection dead, or a lock held?", errSilent, p.timeout)
}

// reader notes activity while r is read.
func (p *idleContext) reader(r io.Reader) io.Reader { return activeReader{p, r} }

type activeReader struct {
	p *idleContext
	r io.Reader
}

func (b activeReader) Read(to []byte) (int, error) {
	b.p.active()
	return b.r.Read(to)
}
