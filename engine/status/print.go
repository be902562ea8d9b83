package status

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/charmbracelet/lipgloss"
	"github.com/dustin/go-humanize"

	"github.com/cryptoviz/cryptoviz/engine/terminal"
)

// Look is how a status is drawn. The zero value is plain text.
type Look struct {
	Color bool
	Width int // columns; 0 is 80
}

// Print draws a status as a table: the sources, then the rollups, then what needs attention.
func (s Status) Print(w io.Writer, look Look) error {
	if look.Width == 0 {
		look.Width = 80
	}
	p := painter{look}
	lines := []string{p.head(s)}
	lines = append(lines, "", p.faint(row("SOURCE", "EVERY", "LAST SLOT", "RECORDS", "PER MIN", "LAG", "DEAD")))
	for _, src := range s.Sources {
		lines = append(lines, p.source(src, s.At))
	}
	if len(s.Rollups) > 0 {
		lines = append(lines, "")
	}
	for _, r := range s.Rollups {
		text := fmt.Sprintf("rollup %s · next %s, in %s", r.Name, r.Next.Format("2006-01-02 15:04"),
			Ago(r.Next.Sub(s.At)))
		if r.Day != "" {
			last := fmt.Sprintf(" · last %s: %s rows -> %s hours", r.Day, humanize.Comma(r.RawRows),
				humanize.Comma(r.HourlyRows))
			if utf8.RuneCountInString(text+last) > look.Width {
				last = "\n  " + strings.TrimPrefix(last, " · ")
			}
			text += last
		}
		lines = append(lines, text)
		if r.LateRows > 0 {
			lines = append(lines, fmt.Sprintf("  %s rows came late", humanize.Comma(r.LateRows)))
		}
	}
	if notes := s.notes(); len(notes) > 0 {
		lines = append(lines, "")
		for _, n := range notes {
			for _, line := range wrap("! "+n, look.Width, 4) {
				lines = append(lines, p.warn(line))
			}
		}
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

// notes are what somebody should look at.
func (s Status) notes() []string {
	var out []string
	if s.KafkaError != "" {
		out = append(out, "lag unknown: "+s.KafkaError)
	}
	for _, src := range s.Sources {
		if !src.Enabled {
			continue
		}
		if src.Reason != "" {
			out = append(out, fmt.Sprintf("%s: %s %s: %s", src.Name, src.Slot.Format("15:04:05"), src.State,
				src.Reason))
		}
		if text := src.Hour.text(src.State); text != "" {
			out = append(out, src.Name+": slots of the last hour: "+text+": see cryptoviz.slot")
		}
		if since, blocked := src.blocked(); blocked {
			out = append(out, fmt.Sprintf("%s: %s records wait, %s: see /readyz of its worker", src.Name,
				humanize.Comma(src.Lag), since))
		}
		if src.Lost > 0 {
			out = append(out, fmt.Sprintf("%s: %s records were gone from its topic before they could be stored: see "+
				"cryptoviz.gap", src.Name, humanize.Comma(src.Lost)))
		}
		for _, hint := range src.Hints {
			out = append(out, src.Name+": "+hint)
		}
		if src.Dead > 0 {
			out = append(out, fmt.Sprintf("%s: %s records could not become rows: see cryptoviz.dead_letter", src.Name,
				humanize.Comma(src.Dead)))
		}
	}
	for _, r := range s.Rollups {
		if r.Due > 0 {
			out = append(out, fmt.Sprintf("rollup %s: %s days should be rolled up and are not: see the log of the "+
				"process that runs the rollups, or run cryptoviz rollup %s --dry-run", r.Name, humanize.Comma(r.Due),
				r.Name))
		}
		if r.Rejected > 0 {
			out = append(out, fmt.Sprintf("rollup %s: %s late rows were rejected and stay raw: late = \"merge\" would "+
				"take them in", r.Name, humanize.Comma(r.Rejected)))
		}
	}
	for _, j := range s.Jobs {
		if j.Failing {
			out = append(out, fmt.Sprintf("TimescaleDB's %s policy of %s fails: %s", j.Name, j.Table, j.Reason))
		}
	}
	return out
}

// text tells of the ends beside the newest one, which is told by itself.
func (e Ends) text(newest string) string {
	only := map[string]Ends{"late": {Late: 1}, "skipped": {Skipped: 1}, "failed": {Failed: 1}}[newest]
	if e == (Ends{}) || e == only {
		return ""
	}
	var parts []string
	for _, p := range []struct {
		n    int64
		what string
	}{{e.Late, "late"}, {e.Skipped, "skipped"}, {e.Failed, "failed"}} {
		if p.n > 0 {
			parts = append(parts, humanize.Comma(p.n)+" "+p.what)
		}
	}
	return strings.Join(parts, ", ")
}

// blocked tells whether records wait that a worker would have stored long ago.
func (s Source) blocked() (since string, blocked bool) {
	switch {
	case s.Lag <= 0:
		return "", false
	case s.Stored.IsZero():
		return "none was ever stored", s.Records > 0 && s.Lag > 2*s.Records
	}
	return "none was stored since " + s.Stored.Format("15:04:05"), s.Slot.Sub(s.Stored) >= 3*s.interval
}

func row(name, every, slot, records, rate, lag, dead string) string {
	return fmt.Sprintf("%-14s %5s  %-22s %8s %8s %7s %6s", clip(terminal.Visible(name), 14), every,
		clip(terminal.Visible(slot), 22), records, rate, lag, dead)
}

// count writes a number in so many columns, in short when it does not fit.
func count(n int64, width int) string {
	text := humanize.Comma(n)
	if len(text) > width {
		text = strings.ReplaceAll(humanize.SIWithDigits(float64(n), 1, ""), " ", "")
	}
	return text
}

type painter struct{ Look }

func (p painter) style(text string, color string) string {
	if !p.Color {
		return text
	}
	return lipgloss.NewStyle().Foreground(lipgloss.Color(color)).Render(text)
}

func (p painter) faint(text string) string { return p.style(text, "8") }
func (p painter) warn(text string) string  { return p.style(text, "3") }

func (p painter) head(s Status) string {
	text := "cryptoviz · " + terminal.Visible(s.Mode) + " data · " + s.At.Format("2006-01-02 15:04:05") + " UTC"
	if s.Mode != "live" {
		return p.warn(text)
	}
	return text
}

func (p painter) source(src Source, now time.Time) string {
	slot, lag := "-", "?"
	switch {
	case !src.Enabled:
		return p.faint(row(src.Name, src.Every, "disabled", "", "", "", ""))
	case !src.Slot.IsZero():
		layout := "15:04:05 "
		if now.Sub(src.Slot) > 24*time.Hour {
			layout = "01-02 15:04 "
		}
		slot = src.Slot.Format(layout) + src.State
	}
	if src.Lag >= 0 {
		lag = count(src.Lag, 7)
	}
	text := row(src.Name, src.Every, slot, count(src.Records, 8), strconv.FormatFloat(src.PerMinute, 'f', 1, 64), lag,
		count(src.Dead, 6))
	switch src.State {
	case "failed", "skipped":
		return p.style(text, "1")
	case "late":
		return p.warn(text)
	}
	return text
}

// Ago writes a length of time in its two largest units: "21h 54m".
func Ago(d time.Duration) string {
	d = max(0, d).Round(time.Second)
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd %dh", d/(24*time.Hour), d/time.Hour%24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d/time.Minute%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm %ds", d/time.Minute, d/time.Second%60)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// clip shortens a line to a number of columns.
func clip(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:width-1]) + "…"
}

// wrap breaks a text into lines at its spaces; what does not fit into so many lines is cut. A reason may hold what a
// source sent: nothing in it may steer the terminal.
func wrap(text string, width, lines int) []string {
	text = terminal.Visible(strings.Join(strings.Fields(text), " "))
	var out []string
	line, used := "", 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case line == "":
			line, used = word, n
			continue
		case used+1+n <= width:
			line, used = line+" "+word, used+1+n
			continue
		case len(out) == lines-1:
			return append(out, clip(line+" "+word, width))
		}
		out = append(out, clip(line, width))
		line, used = "  "+word, 2+n
	}
	return append(out, clip(line, width))
}
