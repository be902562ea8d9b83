package grafana

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Error is an answer of Grafana that is no success.
type Error struct {
	Method, Path string
	Status       int
	Message      string // Grafana's own words, or what is wrong with the answer
	ID           string // messageId, where there is one

	wait time.Duration // Retry-After
	page bool          // HTML instead of JSON
}

// Error says what was answered, and what to do about it.
func (e *Error) Error() string {
	out := fmt.Sprintf("Grafana answers %d to %s %s", e.Status, e.Method, e.Path)
	if e.Message != "" {
		join := ": "
		if strings.HasPrefix(e.Message, "with ") {
			join = " "
		}
		out += join + strings.TrimRight(e.Message, ".")
	}
	if hint := e.hint(); hint != "" {
		out += ": " + hint
	}
	return out
}

func (e *Error) hint() string {
	switch {
	case e.page && e.Status < 500, e.Status >= 300 && e.Status < 400:
		return "grafana.url may be a login page or a proxy, or lack the sub-path that Grafana is served under"
	case e.Status == http.StatusUnauthorized && strings.HasPrefix(e.ID, "api-key."):
		return "grafana.auth holds a token that is wrong, expired or revoked: make a new one for the service account"
	case e.Status == http.StatusUnauthorized:
		return "grafana.auth is not accepted: give a service account's token, or user:password"
	case e.Status == http.StatusForbidden && strings.Contains(e.Message, "datasources"):
		return "the service account needs the role Admin, or these permissions: an Editor cannot manage data sources"
	case e.Status == http.StatusForbidden && !strings.Contains(e.Message, "read-only"):
		return "the service account needs the role Editor at least, or these permissions"
	case strings.Contains(e.Message, "max folder depth"):
		return "this Grafana has a limit on folders in folders: give it a parent further up"
	case e.Status == http.StatusTooManyRequests && e.wait > maxWait:
		return fmt.Sprintf("it asks to wait %s: try again then", e.wait)
	case e.temporary():
		return "it may be starting or overloaded: try again"
	}
	return ""
}

// temporary reports whether the same request may succeed a little later.
func (e *Error) temporary() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// status is the status of an error, 0 when Grafana gave no answer.
func status(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// missing reports whether Grafana has no such object. A web page is no such answer.
func missing(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound && !e.page
}

// conflict reports whether the object changed underneath: older versions answer 412, newer ones 409.
func conflict(err error) bool {
	s := status(err)
	return s == http.StatusConflict || s == http.StatusPreconditionFailed
}
