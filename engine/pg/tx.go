package pg

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// InTx runs f in one transaction. Each statement of it must see what was committed before it, whatever the database's
// default is: a snapshot from before the locks would miss rows. A default of read-only is left alone: somebody set it.
func InTx(ctx context.Context, pool *pgxpool.Pool, f func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, f)
}

// Short bounds what is answered at once, so that a dead connection does not hold its caller for ever.
func Short(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 30*time.Second)
}
