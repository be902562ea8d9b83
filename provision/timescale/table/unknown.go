package table

import (
	"slices"

	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/pg"
	"github.com/cryptoviz/cryptoviz/provision/timescale/catalog"
)

// unknown is why the server could not say something about a table's rows; "" when it did. It counts as unknown, never
// as none.
type unknown string

const (
	locked unknown = "another session holds a lock on it"
	slow   unknown = "it is too large"
)

// unknownFor tells an error that leaves one question open from one that ends the planning of a table: the connection is
// gone, or what is asked about is. TimescaleDB fails with internal errors in queries that PostgreSQL answers, and a
// table is not unreadable for that.
func unknownFor(err error) (unknown, error) {
	switch state := pg.Code(err); {
	case err == nil:
		return "", nil
	case state == "55P03":
		return locked, nil
	case state == "57014":
		return slow, nil
	case state == "25006":
		return catalog.ReadOnlyServer, nil
	case state == "42501", len(state) == 5 && !slices.Contains([]string{"08", "42", "57"}, state[:2]):
		return unknown("the server says " + pg.ServerText(err)), nil
	}
	return "", err
}

// rows tells how many rows have something, as far as that is known.
func (d unknown) rows(n int64, have string) string {
	if d != "" {
		return "how many rows have " + have + " is not known: " + string(d)
	}
	return humanize.Comma(n) + " rows have " + have
}

// note adds a remark once: several statements may meet the same lock.
func (d *tableDiff) note(text string) {
	if !slices.Contains(d.change.Notes, text) {
		d.change.Note("%s", text)
	}
}
