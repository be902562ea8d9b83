package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// screenOf runs a command on a terminal of its own, and returns what reached it.
func screenOf(t *testing.T, getenv func(string) (string, bool), args ...string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	var out bytes.Buffer
	read := make(chan struct{})
	go func() {
		_, _ = io.Copy(&out, master) // ends with an error when the other side is closed
		close(read)
	}()
	Main(t.Context(), append([]string{"--file", "../../pipeline.hcl", "--state", ""}, args...), IO{Stdin: strings.NewReader(""), Stdout: slave, Stderr: slave, Version: "0.1.0", Getenv: getenv})
	_ = slave.Close()
	<-read
	_ = master.Close()
	return strings.ReplaceAll(out.String(), "\r\n", "\n") // the terminal's own
}

// TestNothingSteersTheTerminal prints hostile values in every form; a pipe gets them as they are.
func TestNothingSteersTheTerminal(t *testing.T) {
	url := testkit.Postgres(t)
	getenv := func(name string) (string, bool) { return url, name == "DATABASE_URL" }
	const hostile = "a\x1b]0;title\x07b\x1b[31mc\u009b2Jd\u202ee\u2066f\x7fg\rh"
	literal := "U&'" + strings.NewReplacer("\x1b", `\001b`, "\x07", `\0007`, "\u009b", `\009b`, "\u202e", `\202e`, "\u2066", `\2066`, "\x7f", `\007f`, "\r", `\000d`).Replace(hostile) + "'"
	for _, args := range [][]string{
		{"query", "--format", "table", "SELECT " + literal + " AS x"},
		{"query", "--format", "csv", "SELECT " + literal + " AS x"},
		{"query", "--format", "json", "SELECT " + literal + " AS x"},
		{"query", "--format", "csv", `SELECT 1 AS U&"` + strings.Trim(literal[2:], "'") + `"`},
		{"query", "SELECT (" + literal + ")::int"},
		{"query", "SELECT 1 AS \"" + hostile + "\" FROM nowhere"},
		{"status", "--json", "--file", hostile + ".hcl"},
		{"plan", "--file", hostile + ".hcl"},
		{"validate", "--var", hostile},
		{hostile},
		{"run", "--only", hostile},
		{"explain", hostile},
		{"show", hostile},
	} {
		text := screenOf(t, getenv, args...)
		if !strings.Contains(text, "title") {
			t.Errorf("%q says nothing of it: %q", args, text)
		}
		for _, r := range text {
			if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
				t.Errorf("%q: %U reaches the terminal: %q", args, r, text)
				break
			}
		}
	}
	for form, want := range map[string]string{"csv": "x\n\"" + hostile + "\"\n", "json": `"x": "a\u001b]0;title\u0007b\u001b[31mc` + "\u009b2Jd\u202ee\u2066f\x7fg" + `\rh"`} {
		var out buffer
		Main(t.Context(), []string{"--file", "../../pipeline.hcl", "--state", "", "query", "--format", form, "SELECT " + literal + " AS x"}, IO{Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard, Getenv: getenv})
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s to a pipe: %q, want %q", form, out.String(), want)
		}
	}
}
