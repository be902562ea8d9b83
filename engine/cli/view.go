package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/run"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/status"
	"github.com/cryptoviz/cryptoviz/engine/terminal"
)

// view shows a running `up`: redrawn in place on a terminal, or a line of log each minute.
type view struct {
	up       *up
	engine   *run.Engine
	kafka    string
	metrics  net.Listener
	terminal bool
	log      io.Writer
	first    time.Duration // from the start of the program to the first stored row; 0 until then
}

const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // a screen of its own, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// show runs until ctx ends.
func (v *view) show(ctx context.Context) error {
	if v.terminal {
		_, _ = io.WriteString(terminal.Draw(v.up.env.Stdout), enterScreen)
		defer func() { _, _ = io.WriteString(terminal.Draw(v.up.env.Stdout), leaveScreen) }()
	} else {
		v.up.env.note("")
		v.connections(v.up.env.Stderr)
		v.up.env.note("")
	}
	fast := time.NewTicker(50 * time.Millisecond)
	defer fast.Stop()
	draw := time.NewTicker(time.Second)
	defer draw.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-fast.C:
			if v.first > 0 {
				fast.Stop()
				continue
			}
			if v.engine.Rows() > 0 {
				v.first = time.Since(v.up.began)
				v.up.log.Info("first row stored", "after", v.first.Round(10*time.Millisecond).String())
			}
		case <-draw.C:
			n++
			if v.terminal {
				v.draw(ctx)
			} else if n%60 == 0 {
				v.line(ctx)
			}
		}
	}
}

// draw repaints the screen in one write.
func (v *view) draw(ctx context.Context) {
	var text bytes.Buffer
	look := status.Look{Color: v.up.env.color(v.up.env.Stdout), Width: int(v.up.env.width(v.up.env.Stdout))}
	s, err := v.read(ctx)
	if err != nil {
		fmt.Fprintf(&text, "cryptoviz · %s data\n\nThe database does not answer: %s\nThe workers wait; "+
			"nothing is lost.\n", v.up.mode(), terminal.Visible(describe(err)))
	} else {
		_ = s.Print(&text, look)
	}
	text.WriteByte('\n')
	fmt.Fprintf(&text, "running %s", status.Ago(time.Since(v.up.began)))
	if v.first > 0 {
		fmt.Fprintf(&text, " · first row after %.1f s", v.first.Seconds())
	}
	fmt.Fprintf(&text, " · %d rows stored\n", v.engine.Rows())
	v.connections(&text)
	text.WriteString("\nCtrl-C stops it; the data stays.")
	lines := fit(strings.Split(text.String(), "\n"), len(s.Sources), look.Width, v.up.env.height(v.up.env.Stdout))
	_, _ = io.WriteString(terminal.Draw(v.up.env.Stdout), toTop+strings.Join(lines, clearLine+
		"\n")+clearLine+clearBelow)
}

// beforeSources are the lines of a status above its first source.
const beforeSources = 3

// fit cuts a screen down to the terminal's height, for what is lower would push the top out: first of the sources,
// whose lines are the most, then of the end.
func fit(lines []string, sources, width, height int) []string {
	over := -height
	for _, line := range lines {
		over += rowsOf(line, width)
	}
	if cut := min(over+1, sources); over > 0 && cut > 1 { // one line tells of them
		from := beforeSources + sources - cut
		more := fmt.Sprintf("… and %d more", cut)
		lines = slices.Concat(lines[:from], []string{more}, lines[from+cut:])
	}
	for i, line := range lines {
		if height -= rowsOf(line, width); height < 0 {
			return lines[:i]
		}
	}
	return lines
}

var paint = regexp.MustCompile("\x1b\\[[0-9;]*m")

// rowsOf is how many rows of the terminal a line takes.
func rowsOf(line string, width int) int {
	n := utf8.RuneCountInString(paint.ReplaceAllString(line, ""))
	return max(1, (n+width-1)/width)
}

func (v *view) read(ctx context.Context) (status.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return v.engine.Status(ctx)
}

// line logs one summary a minute.
func (v *view) line(ctx context.Context) {
	s, err := v.read(ctx)
	if err != nil {
		v.up.log.Warn("status cannot be read", "error", describe(err))
		return
	}
	var sources []any
	for _, src := range s.Sources {
		if src.Enabled {
			sources = append(sources, slog.Group(src.Name, "slot", src.Slot.Format(time.TimeOnly), "state", src.State,
				"records", src.Records, "lag", src.Lag))
		}
	}
	v.up.log.Info("status", append([]any{"rows", v.engine.Rows()}, sources...)...)
}

// lastRows is a query on the table that the first source fills.
func lastRows(p *spec.Pipeline) string {
	i := max(0, slices.IndexFunc(p.Sources, func(s *spec.Source) bool { return s.Enabled }))
	t, order := p.Sources[i].Table, ""
	if t.Hypertable != nil {
		order = " ORDER BY " + t.Hypertable.Time + " DESC"
	}
	return "SELECT * FROM " + t.Name + order + " LIMIT 9"
}

func (v *view) connections(to io.Writer) {
	dsn := connect.Redact(v.up.p.Database.URL)
	w := &strings.Builder{}
	fmt.Fprintf(w, "PostgreSQL  %s   password: %s\n", dsn, filepath.Join(v.up.env.state, "state.json"))
	fmt.Fprintf(w, "            %s %q\n", v.up.env.commandLine("query"), lastRows(v.up.p))
	fmt.Fprintf(w, "Kafka       %s   %s, user %s, password: kafka_password in the same file\n", v.kafka,
		v.up.p.Kafka.SASLMechanism, v.up.p.Kafka.SASLUser)
	if v.metrics != nil {
		fmt.Fprintf(w, "Metrics     http://%s/metrics\n", v.metrics.Addr())
	}
	if v.terminal {
		fmt.Fprintf(w, "Log         %s\n", filepath.Join(v.up.env.state, "cryptoviz.log"))
	}
	_, _ = io.WriteString(to, w.String())
}
