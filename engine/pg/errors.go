package pg

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Class says what an error is about, and so who can do something about it.
type Class uint8

// The classes. What each SQLSTATE is, testdata/sqlstates.txt lists.
const (
	None          Class = iota // no error of a server
	Unavailable                // cannot be reached, starts, stops, is short of something: passes by itself
	ReadOnly                   // takes no writes now: a standby, or a setting
	Conflict                   // met another transaction: the same again may succeed at once
	LockBusy                   // another transaction holds what is needed
	Canceled                   // ended by a timeout or an operator
	Limit                      // met a limit of the server's settings or of the program
	BadData                    // a value or a row is not allowed
	Raised                     // a function or a trigger objects in words of its own
	MissingObject              // a table, column, function … is not there
	NoPrivilege                // a right is missing
	Rejected                   // the statement does not fit the objects that are there
	Other                      // internal errors, and those of extensions
)

var classNames = []string{
	"none", "unavailable", "read-only", "conflict", "lock busy", "canceled", "limit", "bad data", "raised",
	"missing object", "no privilege", "rejected", "other",
}

func (c Class) String() string { return classNames[c] }

// SQLSTATEs that somebody treats by themselves.
const (
	InvalidBinary       = "22P03"
	BadCopyFormat       = "22P04"
	ProtocolViolation   = "08P01"
	NotNullViolation    = "23502"
	UniqueViolation     = "23505"
	CheckViolation      = "23514"
	FeatureNotSupported = "0A000"
	NoSuchConflictKey   = "42P10"
)

// byState is what differs from its SQLSTATE's class.
var byState = map[string]Class{
	"25006": ReadOnly, "25P03": Unavailable, "25P04": Canceled,
	"42501": NoPrivilege, "42P01": MissingObject, "42P02": MissingObject, "42703": MissingObject,
	"42704": MissingObject, "42883": MissingObject,
	// a row that is too large for a page or an index; its neighbours are the server's own limits
	"53400": Limit, "54000": BadData,
	"55006": LockBusy, "55P03": LockBusy,
	"57000": Canceled, "57014": Canceled,
	"HV001": Unavailable, "HV00N": Unavailable, // memory, connection of a foreign server
	"XX001": Unavailable, "XX002": Unavailable, // a corrupted page or index
}

// byClass is what the first two characters of a SQLSTATE say. A class that is not here is none of PostgreSQL's:
// somebody's function made it up.
var byClass = map[string]Class{
	"00": None, "01": Other, "02": Other, "03": Other, "08": Unavailable, "09": Raised, "0A": Rejected, "0B": Other,
	"0F": Other, "0L": NoPrivilege, "0P": Rejected, "0Z": Rejected,
	"10": BadData, "20": Raised, "21": Rejected, "22": BadData, "23": BadData, "24": Rejected, "25": Other,
	"26": Rejected, "27": Rejected, "28": NoPrivilege, "2B": Rejected,
	"2D": Rejected, "2F": Rejected, "34": Rejected, "38": Raised, "39": Rejected, "3B": Rejected, "3D": MissingObject,
	"3F": MissingObject, "40": Conflict, "42": Rejected,
	"44": BadData, "53": Unavailable, "54": Limit, "55": Rejected, "57": Unavailable, "58": Unavailable, "72": Conflict,
	"F0": Unavailable, "HV": Other, "P0": Raised, "TS": Other, "XX": Other,
}

// ClassOf returns the class of an error, also of one that never reached a server.
func ClassOf(err error) Class {
	if _, connecting := errors.AsType[*pgconn.ConnectError](err); connecting {
		return Unavailable
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if _, network := errors.AsType[net.Error](err); network || pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) ||
			errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded) {
			return Unavailable
		}
		return None
	}
	switch {
	case IsRaised(pg): // RAISE may use any SQLSTATE
		return Raised
	case pg.Routine == "ExecWithCheckOptions": // row-level security on one row has the SQLSTATE of a missing right
		return BadData
	}
	if c, ok := byState[pg.Code]; ok {
		return c
	}
	if c, ok := byClass[pg.Code[:min(2, len(pg.Code))]]; ok {
		return c
	}
	return Raised
}

// Is tells whether an error is of one of the classes.
func Is(err error, classes ...Class) bool { return slices.Contains(classes, ClassOf(err)) }

// IsRaised tells whether PL/pgSQL's RAISE or ASSERT made the error, so that its SQLSTATE means what its author wanted.
func IsRaised(err *pgconn.PgError) bool {
	return err.Routine == "exec_stmt_raise" || err.Routine == "exec_stmt_assert"
}

// Code returns the SQLSTATE of an error, or "".
func Code(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// StatementError is a statement that failed.
type StatementError struct {
	SQL string
	Err error
}

func (e *StatementError) Error() string { return FirstLine(e.SQL) + ": " + ServerText(e.Err) }

func (e *StatementError) Unwrap() error { return e.Err }

// Refuses tells whether an SQLSTATE is about the statement itself, and not about the connection, a lock or a privilege.
func Refuses(state string) bool {
	if state == "42501" || len(state) != 5 {
		return false
	}
	switch state[:2] {
	case "0A", "21", "22", "23", "2B", "42", "TS": // TS is TimescaleDB's own
		return true
	}
	return state == "55000" || state == "P0001"
}

// ServerText is the server's own message, with its hint.
func ServerText(err error) string {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err.Error()
	}
	text := e.Message
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// FirstLine is how an error names a statement.
func FirstLine(s string) string {
	for strings.HasPrefix(s, "--") { // a comment tells nothing of the statement below it
		_, s, _ = strings.Cut(s, "\n")
	}
	line, _, more := strings.Cut(s, "\n")
	if more {
		line += " …"
	}
	return line
}

// NoTable tells whether an SQLSTATE says that a table or its schema is not there.
func NoTable(state string) bool { return state == "42P01" || state == "3F000" }
