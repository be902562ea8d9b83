package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// wrapConnError says it when an error of PostgreSQL means that its connection ended, or that there was none: pgx says
// "conn closed".
func wrapConnError(err error) error {
	var what string
	pg, answered := errors.AsType[*pgconn.PgError](err)
	_, unreached := errors.AsType[*pgconn.ConnectError](err)
	_, broken := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case answered && (strings.HasPrefix(pg.Code, "57P") || strings.HasPrefix(pg.Code, "08") && pg.Code != "08P01"):
		what = "PostgreSQL ended the session"
	case answered:
		return err
	case unreached:
		what = "PostgreSQL cannot be reached"
	case broken, pgconn.SafeToRetry(err), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		what = "the connection to PostgreSQL was lost"
	default:
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// wrapConnErrorOf is wrapConnError for an error of a resource, which may be of another system.
func wrapConnErrorOf(address string, err error) error {
	if inDatabase(address) {
		return wrapConnError(err)
	}
	return err
}
