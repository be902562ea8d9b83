package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const steadyVar = "CRYPTOVIZ_TEST_STEADY" // set: the command's output is made the same in every run

// steady is a writer that replaces what differs from run to run, and from server to server, by what a user might see. It keeps
// everything until the returned function writes it.
func steady(w io.Writer) (io.Writer, func()) {
	if os.Getenv(steadyVar) == "" {
		return w, func() {}
	}
	kept := &bytes.Buffer{}
	return kept, func() { _, _ = io.WriteString(w, steadyText(kept.String())) }
}

var (
	versionForm  = regexp.MustCompile(`\bPostgreSQL \d+(\.\d+)*`)
	tookForm     = regexp.MustCompile(`\bin \d+(\.\d+)?(ms|s)\b`)
	readForm     = regexp.MustCompile(`\(\d+ requests?, \d+\.\d\d s\)`)
	momentForm   = regexp.MustCompile(`\b20\d\d-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?)?`)
	databaseForm = regexp.MustCompile(`(database \w+ |   )\(system \d+, oid \d+, (no ledger yet|ledger )[0-9a-f-]*`)
	onDatabase   = regexp.MustCompile(`^on PostgreSQL database \w+`)
	identityForm = regexp.MustCompile(`"(name|system|ledger)": "(t_\w+|\d{15,}|[0-9a-f-]{36})"|"(oid)": \d+`)
	sumForm      = regexp.MustCompile(`"sum": "[0-9a-f]{64}"`)
	costForm     = regexp.MustCompile(`"(requests|seconds)": [0-9.e-]+`)
	slowForm     = regexp.MustCompile(`^Still reading |: still at it … \d`) // on a slow machine
	doneForm     = regexp.MustCompile(`^([a-z]+)\.\w+: (created|changed|replaced|deleted|adopted|failed)\b`)

	// Texts with a version or an address in them break elsewhere on another server: these are folded anew.
	foldedForm = regexp.MustCompile(`^((Read  |      )(Kafka|PostgreSQL|Grafana) +|Note  |      note: )`)
)

func steadyText(text string) string {
	names := strings.NewReplacer(steadyNames()...)
	var out []string
	lines := strings.Split(text, "\n")
	lines = slices.DeleteFunc(lines, slowForm.MatchString)
	for i := 0; i < len(lines); i++ {
		head := foldedForm.FindString(lines[i])
		if head == "" {
			out = append(out, steadyLine(names, lines[i]))
			continue
		}
		hang := strings.Repeat(" ", len(head))
		if strings.HasSuffix(head, "note: ") {
			hang = "        "
		}
		words := strings.TrimPrefix(lines[i], head)
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], hang) && lines[i+1][len(hang)] != ' ' {
			i++
			words += " " + strings.TrimSpace(lines[i])
		}
		out = append(out, refold(head, hang, steadyLine(names, words))...)
	}
	sortDone(out)
	return strings.Join(out, "\n")
}

func steadyLine(names *strings.Replacer, line string) string {
	line = names.Replace(line)
	line = versionForm.ReplaceAllString(line, "PostgreSQL 17.6")
	line = tookForm.ReplaceAllString(line, "in 20ms")
	line = readForm.ReplaceAllString(line, "(9 requests, 0.02 s)")
	line = onDatabase.ReplaceAllString(line, "on PostgreSQL database crypto")
	line = databaseForm.ReplaceAllStringFunc(line, func(found string) string {
		part := databaseForm.FindStringSubmatch(found)
		if strings.HasPrefix(part[1], "database") {
			part[1] = "database crypto "
		}
		return part[1] + "(system 7000000000000000000, oid 16384, " + part[2]
	})
	line = identityForm.ReplaceAllString(line, `"$1$3": "…"`)
	line = sumForm.ReplaceAllString(line, `"sum": "…"`)
	line = costForm.ReplaceAllString(line, `"$1": 0`)
	return momentForm.ReplaceAllStringFunc(line, presentMoment)
}

// refold breaks a text into lines of 80 columns, as a plan does.
func refold(head, hang, text string) (out []string) {
	line := head
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > 80:
			out, line = append(out, line), hang
		default:
			line += " "
		}
		line += word
	}
	return append(out, line)
}

// sortDone puts lines of progress next to each other into the plan's order: what is done at the same time ends in any order.
func sortDone(lines []string) {
	order := []string{"engine", "topic", "table", "view", "aggregate", "role", "folder", "datasource", "dashboard", "alert"}
	place := func(line string) int { return slices.Index(order, doneForm.FindStringSubmatch(line)[1]) }
	for i := 0; i < len(lines); i++ {
		n := i
		for n < len(lines) && doneForm.MatchString(lines[n]) {
			n++
		}
		slices.SortFunc(lines[i:n], func(a, b string) int {
			if d := place(a) - place(b); d != 0 {
				return d
			}
			return strings.Compare(a, b)
		})
		i = max(i, n-1)
	}
}

// steadyNames are the addresses of this run and what stands for them.
func steadyNames() []string {
	var out []string
	put := func(from, to string) {
		if from != "" {
			out = append(out, from, to)
		}
	}
	put(os.Getenv("GRAFANA_URL"), "http://graphs.lan:3000")
	put(strings.TrimPrefix(os.Getenv("GRAFANA_URL"), "http://"), "graphs.lan:3000")
	if u, err := url.Parse(os.Getenv("DATABASE_URL")); err == nil && u.Port() != "1" {
		put(u.User.Username()+"@"+u.Host+u.Path, "cryptoviz@db.lan:5432/crypto")
		put(u.Host+u.Path, "db.lan:5432/crypto")
	}
	for i, addr := range strings.Split(os.Getenv("KAFKA_BROKERS"), ",") {
		put(addr, fmt.Sprintf("kafka%d.lan:9092", i+1))
	}
	return out
}

// presentMoment moves a time that has to do with now: today is 9 January 2026, and now is 14:00, to the nearest ten minutes.
// Other times are the script's own.
func presentMoment(text string) string {
	if strings.HasPrefix(text, "2026-01-09 14:0") { // the Grafana server's own clock
		return text
	}
	now := time.Now().UTC()
	for _, form := range []string{"2006-01-02T15:04:05.999999999Z", time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		at, err := time.Parse(form, text)
		if err != nil {
			continue
		}
		age, present := now.Sub(at).Round(10*time.Minute), time.Date(2026, 1, 9, 14, 0, 0, 0, time.UTC)
		if at.Equal(at.Truncate(24 * time.Hour)) {
			age, present = now.Truncate(24*time.Hour).Sub(at), present.Truncate(24*time.Hour)
		}
		if age.Abs() < 60*24*time.Hour {
			return present.Add(-age).Format(form)
		}
	}
	return text
}
