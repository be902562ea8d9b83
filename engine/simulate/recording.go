package simulate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

const (
	// maxLag bounds how far behind its arrival a recorded time may lie: a snapshot of a quiet market may be hours old.
	maxLag = 5 * time.Second
	// pause lies between two rounds of a recording.
	pause = time.Second
)

// recording is recorded traffic of one source.
type recording struct {
	frames []*template
	at     []time.Duration // when each frame comes, from the beginning; never falls
	length time.Duration   // after this it begins again
}

// unfitError means that recordings are whole, and are of something else than the source: of another channel, perhaps.
type unfitError struct{ files, definition, reason string }

func (e *unfitError) Error() string {
	return fmt.Sprintf("its recording %s does not fit %s: %s", e.files, e.definition, e.reason)
}

// recordingLine is one line of the file.
type recordingLine struct {
	Received *float64        `json:"received"`
	Message  json.RawMessage `json:"message"`
}

// recordedPlayer reads the recordings of a source: NAME.ndjson, NAME-*.ndjson, where NAME is the source's name or its
// definition's; nil: there are none. An *unfitError: they hold nothing that the definition makes a row of.
func recordedPlayer(fsys fs.FS, src *spec.Source) (*player, error) {
	files, err := recordings(fsys, src)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	var why error
	m, err := newMaker(src, 0, false, func(_ string, err error) {
		if why == nil {
			why = err
		}
	})
	if err != nil {
		return nil, err
	}
	t, rows := &recording{}, 0
	for _, name := range files {
		body, err := readFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("read recording %s: %w", name, err)
		}
		start, first, lines := t.length, math.NaN(), 0
		for i, line := range bytes.Split(body, []byte("\n")) {
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			received, message, err := readLine(line, src)
			if err != nil {
				return nil, fmt.Errorf("read recording %s, line %d: %w", name, i+1, err)
			}
			if lines++; lines == 1 {
				first = received
			}
			at := time.Unix(0, int64(received*1e9)).UTC()
			frame, err := m.compile(message, at)
			if err != nil { // a refusal was recorded: it is played as it came
				if why == nil {
					why = err
				}
				frame = cut(message, nil, nil)
			}
			for _, g := range frame.groups {
				if g.row {
					rows++
				}
			}
			t.length = max(t.length, start+time.Duration((received-first)*float64(time.Second)))
			t.frames, t.at = append(t.frames, frame), append(t.at, t.length)
		}
		if lines == 0 {
			return nil, fmt.Errorf("read recording %s: it is empty", name)
		}
		t.length += pause
	}
	if rows == 0 {
		reason := "no frame holds a record"
		if why != nil {
			reason = why.Error()
		}
		return nil, &unfitError{strings.Join(files, ", "), src.Definition.File, reason}
	}
	return &player{src: src, recording: t}, nil
}

func recordings(fsys fs.FS, src *spec.Source) ([]string, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("read the recordings: %w", err)
	}
	definition := strings.TrimSuffix(path.Base(src.Definition.File), path.Ext(src.Definition.File))
	for _, name := range []string{src.Name, definition} {
		var out []string
		for _, e := range entries {
			stem, ok := strings.CutSuffix(e.Name(), ".ndjson")
			if ok && !e.IsDir() && (stem == name || strings.HasPrefix(stem, name+"-")) {
				out = append(out, e.Name())
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, nil
}

// readLine reads one line. A message that is a text (a page, or what was not JSON) is the text itself.
func readLine(line []byte, src *spec.Source) (received float64, message []byte, err error) {
	var r recordingLine
	if err := json.Unmarshal(line, &r); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return 0, nil, fmt.Errorf("not JSON at byte %d: %w", syntax.Offset, err)
		}
		return 0, nil, fmt.Errorf("want {\"received\": seconds, \"message\": …}: %w", err)
	}
	switch {
	case r.Received == nil:
		return 0, nil, errors.New("\"received\" (unix seconds) is missing")
	case *r.Received < 0 || *r.Received >= float64(expr.MaxTime.Unix()):
		return 0, nil, fmt.Errorf("\"received\" is %v: not unix seconds of 1970 to 2261", *r.Received)
	case len(r.Message) == 0 || string(r.Message) == "null":
		return 0, nil, errors.New("\"message\" is missing")
	case src.Definition.Stream != nil && int64(len(r.Message)) > src.Definition.Stream.MaxMessage &&
		src.Definition.Stream.MaxMessage > 0:
		return 0, nil, fmt.Errorf("the message has %d bytes; the source takes at most %d", len(r.Message),
			src.Definition.Stream.MaxMessage)
	}
	if r.Message[0] == '"' {
		var text string
		if err := json.Unmarshal(r.Message, &text); err != nil {
			return 0, nil, err
		}
		return *r.Received, []byte(text), nil
	}
	return *r.Received, r.Message, nil
}

// current returns the frame that a poll gets, so long after the recording began.
func (t *recording) current(since time.Duration) *template {
	since = max(since, 0) % t.length
	i := 0
	for i+1 < len(t.at) && t.at[i+1] <= since {
		i++
	}
	return t.frames[i]
}
