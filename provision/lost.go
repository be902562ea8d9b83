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

// lost says it when an error of PostgreSQL means that its connection ended, or that there was none: pgx says "conn closed".
func lost(err error) error {
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

// lostBy is lost for an error of a resource, which may be of another system.
func lostBy(address string, err error) error {
	if inDatabase(address) {
		return lost(err)
	}
	return err
}
