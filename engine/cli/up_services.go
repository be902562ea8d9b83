package cli

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/embedded"
	"github.com/cryptoviz/cryptoviz/engine/serve"
)

// listener takes the metrics port: the usual one, or any when that is taken and the user did not choose it.
func (u *up) listener(ctx context.Context) (net.Listener, error) {
	if u.listen == "" {
		return nil, nil
	}
	l, err := serve.Listen(ctx, u.listen)
	if err != nil && !u.listenIs {
		return serve.Listen(ctx, "127.0.0.1:0")
	}
	return l, err
}

// keepPostgres starts the private server again when it ends by itself: on its port, for that is where the engine and
// other commands look for it. The workers wait meanwhile.
func (u *up) keepPostgres(ctx context.Context, opt embedded.PostgresOptions, mu *sync.Mutex) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.pg.Done():
		}
		if ctx.Err() != nil {
			return nil
		}
		u.log.Warn("the private PostgreSQL stopped and is started again", "log",
			filepath.Join(u.state.Dir, "postgres.log"))
		if err := u.restartPostgres(ctx, opt, mu); err != nil {
			return err
		}
	}
}

// restartPostgres waits as long as another program has the server's port.
func (u *up) restartPostgres(ctx context.Context, opt embedded.PostgresOptions, mu *sync.Mutex) error {
	opt.KeepPort = true
	for said := false; ; {
		mu.Lock()
		pg, err := embedded.StartPostgres(ctx, u.state, opt)
		if err == nil {
			u.pg = pg
		}
		mu.Unlock()
		port, taken := errors.AsType[*embedded.PortError](err)
		if !taken {
			return err
		}
		if !said {
			said = true
			u.log.Warn("the private PostgreSQL cannot start: another program took its port. The workers wait until "+
				"that program ends", "port", port.Port)
		}
		if err := clock.Real().Sleep(ctx, time.Second); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
	}
}

// keepVirtual writes the time of a sped-up clock down, so that the next up goes on from it and never back.
func (u *up) keepVirtual(ctx context.Context) error {
	if u.clock == clock.Real() {
		return nil
	}
	for {
		err := clock.Real().Sleep(ctx, time.Second)
		if failed := u.state.Update(func(d *embedded.StateData) { d.Virtual = u.clock.Now() }); failed != nil {
			// a full disk must not end it
			u.log.Warn("the time of the fast clock was not written down", "error", failed.Error())
		}
		if err != nil {
			return nil //nolint:nilerr // ctx ended
		}
	}
}
