package fetch

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// StreamStats counts since the start of the process.
type StreamStats struct {
	Connects int64 // connections that were made
	Strange  int64 // frames that were not understood
	Errors   int64 // failures that the source reported
}

// maxComplaints bounds what is remembered of a source's complaints.
const maxComplaints = 1000

// standing is how a stream stands now, for slots that get no record and for those that get not all. Times are the
// engine's.
type standing struct {
	mu      sync.Mutex
	stats   StreamStats
	failure *Error    // why there is no connection, or why the one before ended; nil: there was none
	up      bool      // connected
	since   time.Time // … since then
	record  time.Time // newest record of this connection; zero: none
	problem string    // what the source said, since then
	strange string    // what is not understood, since then
	logged  string    // what is not understood, and was logged
	said    string    // what it said last, of no market
	saidAt  time.Time
	refused map[string]string // market → what it said, on this connection
	told    map[string]bool   // what was logged
}

var notYet = &Error{Reason: "not connected yet"}

// why says why no record came since a slot's begin, or on this connection; nil: one did.
func (s *standing) why(since time.Time) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.up && s.failure == nil:
		return notYet
	case !s.up:
		return s.failure
	case s.problem != "":
		return &Error{Reason: s.problem, Temporary: true}
	case s.strange != "":
		return &Error{Reason: "connected, and " + s.strange, Temporary: true}
	case !s.record.IsZero() && !s.record.Before(since):
		return nil
	case !s.record.IsZero():
		return &Error{
			Reason:    "connected, and no record has come since " + s.record.Format("15:04:05") + " UTC",
			Temporary: true,
		}
	}
	reason := "connected, and no record has come yet"
	if s.failure != nil && s.since.After(since) && !since.IsZero() { // the slot was without a connection before
		reason = fmt.Sprintf("connected again at %s UTC, and no record has come yet; before that: %s",
			s.since.Format("15:04:05"), s.failure.Reason)
	}
	return &Error{Reason: reason, Temporary: true}
}

// complaints says what the source reported since a slot's begin, and which markets it refuses.
func (s *standing) complaints(since time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	const most = 3
	var out []string
	for _, market := range slices.Sorted(maps.Keys(s.refused)) {
		if len(out) == most {
			out = append(out, fmt.Sprintf("and %d more markets", len(s.refused)-most))
			break
		}
		out = append(out, market+": "+s.refused[market])
	}
	if s.said != "" && !s.saidAt.Before(since) {
		out = append(out, s.said)
	}
	return strings.Join(out, "; ")
}

// begun notes a new connection.
func (s *standing) begun(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Connects++
	s.up, s.since, s.record, s.problem, s.refused = true, now, time.Time{}, "", nil
	s.strange = ""
}

// ended notes why there is no connection.
func (s *standing) ended(e *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up, s.failure = false, e
}

// came notes a record: whatever was wrong before is not why none comes.
func (s *standing) came(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record, s.problem, s.strange = now, "", ""
}

// complained notes what the source reports, and tells whether that is news for the log.
func (s *standing) complained(now time.Time, market, text string) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Errors++
	s.problem = text
	if market == "" {
		s.said, s.saidAt = text, now
	} else if len(s.refused) < maxComplaints {
		if s.refused == nil {
			s.refused = map[string]string{}
		}
		s.refused[market] = text
	}
	key := market + "\n" + text
	if s.told[key] {
		return false
	}
	if s.told == nil || len(s.told) == maxComplaints {
		s.told = map[string]bool{}
	}
	s.told[key] = true
	return true
}

// notUnderstood notes a frame of which nothing came, and tells whether that is news for the log.
func (s *standing) notUnderstood(reason string) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Strange++
	s.strange = "what comes is not understood: " + reason
	news = s.logged != reason
	s.logged = reason
	return news
}

// unsolved is what was wrong since the newest record; "" for nothing. What the source says in plain words is the better
// reason.
func (s *standing) unsolved() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.problem, s.strange)
}

func (s *standing) count(f func(*StreamStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

func (s *standing) counted() StreamStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}
