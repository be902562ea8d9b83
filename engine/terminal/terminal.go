// Package terminal keeps what comes from outside from steering a terminal: a price, a reason or a table's name may hold
// an escape sequence, or turn the direction of the text around it.
package terminal

import (
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Visible replaces every character that a terminal obeys, or that changes how others are seen. Line breaks stay, and
// the joiners that scripts and emoji are written with.
func Visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && obeyed(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func obeyed(r rune) bool {
	const nonJoiner, joiner = '\u200c', '\u200d'
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) && r != nonJoiner && r != joiner
}

// Screen writes to a terminal what Visible leaves, and tabs. Goroutines may use it side by side.
type Screen struct {
	*os.File
	mu   sync.Mutex
	held []byte // the beginning of a character
}

// Guard returns a Screen when w is a terminal, else w: a file or a pipe gets every byte.
func Guard(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &Screen{File: f}
	}
	return w
}

// File is the file that a writer is, or guards; nil for none.
func File(w any) *os.File {
	switch w := w.(type) {
	case *os.File:
		return w
	case *Screen:
		return w.File
	}
	return nil
}

// Write implements io.Writer. It always takes all of p.
func (s *Screen) Write(p []byte) (int, error) { return s.write(p, nil) }

// WriteString is Write.
func (s *Screen) WriteString(text string) (int, error) { return s.Write([]byte(text)) }

// ReadFrom is copying with Write: that of the file would write past it.
func (s *Screen) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, r)
}

// drawn are the sequences that this program itself draws with: colours, the cursor's place, clearing, and another
// screen.
var drawn = regexp.MustCompile(`^\x1b\[(\?[0-9]{1,4}[hl]|[0-9;]{0,16}m|[HJK]|2J)`)

// Draw returns a writer that leaves colours and the like in: for text whose parts from outside went through Visible.
func Draw(w io.Writer) io.Writer {
	if s, ok := w.(*Screen); ok {
		return drawing{s}
	}
	return w
}

type drawing struct{ screen *Screen }

func (d drawing) Write(p []byte) (int, error) { return d.screen.write(p, drawn) }

func (s *Screen) write(p []byte, allowed *regexp.Regexp) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := append(s.held, p...)
	out := make([]byte, 0, len(text))
	for len(text) > 0 && utf8.FullRune(text) {
		r, n := utf8.DecodeRune(text)
		if r == 0x1b && allowed != nil {
			if sequence := allowed.Find(text); sequence != nil {
				out, text = append(out, sequence...), text[len(sequence):]
				continue
			}
		}
		if r != '\n' && r != '\t' && obeyed(r) {
			r = unicode.ReplacementChar
		}
		out, text = utf8.AppendRune(out, r), text[n:] // what is no UTF-8 is replaced, too
	}
	s.held = append([]byte(nil), text...)
	if _, err := s.File.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
