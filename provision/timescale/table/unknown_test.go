package table

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What was asked about is gone, or the session: that ends the planning of a table, and leaves no question open.
func TestUnknownReasons(t *testing.T) {
	t.Parallel()
	for state, open := range map[string]bool{"XX000": true, "53100": true, "42501": true, "40P01": true, "42703": false, "42P01": false, "57P01": false, "08006": false} {
		why, err := unknownFor(&pgconn.PgError{Code: state, Message: "no"})
		if (why == "the server says no") != open || (err == nil) != open {
			t.Errorf("%s: %q %v", state, why, err)
		}
	}
}
