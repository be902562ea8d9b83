package terminal

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"plain ü 漢 🚀\n":             "plain ü 漢 🚀\n",
		"a\x1b[31mb":                "a�[31mb",
		"a\x1b]0;title\x07b":        "a�]0;title�b",
		"a\u009b31mb":               "a�31mb",
		"over\rwritten\b\x7f":       "over�written��",
		"a\u202eb\u2066c\u200fd":    "a�b�c�d",
		"line\u2028separator\u2029": "line�separator�",
		"tag\U000e0041 soft\u00ad":  "tag� soft�",
		"می\u200cخواهم 👩\u200d🚀":    "می\u200cخواهم 👩\u200d🚀",
		"a\tb":                      "a�b",
	} {
		if got := Visible(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestScreen writes every character, in pieces of every size, and looks at what reaches the terminal.
func TestScreen(t *testing.T) {
	var all bytes.Buffer
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if r < 0x3000 || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			fmt.Fprintf(&all, "%c", r)
		}
	}
	all.WriteString("\x9b31m\xff\xc3(cut\xe2\x80") // bytes that are C1 to an old terminal, and no UTF-8
	for _, size := range []int{1, 2, 3, 7, 4096, all.Len()} {
		for _, drawn := range []bool{false, true} {
			file, err := os.Create(t.TempDir() + "/screen")
			if err != nil {
				t.Fatal(err)
			}
			screen := &Screen{File: file}
			var w io.Writer = screen
			if drawn {
				w = Draw(screen)
			}
			for chunk := range bytesOf(all.Bytes(), size) {
				if n, err := w.Write(chunk); n != len(chunk) || err != nil {
					t.Fatal(n, err)
				}
			}
			text, err := os.ReadFile(file.Name())
			if err != nil || !utf8.Valid(text) {
				t.Fatalf("no UTF-8: %v", err)
			}
			for _, r := range string(text) {
				if r != '\n' && r != '\t' && obeyed(r) {
					t.Errorf("%U came through in pieces of %d", r, size)
				}
			}
			if !strings.Contains(string(text), "ü") || !strings.Contains(string(text), "⌛") {
				t.Error("what may be seen did not")
			}
			_ = file.Close()
		}
	}
}

func bytesOf(p []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			n := min(size, len(p))
			if !yield(p[:n]) {
				return
			}
			p = p[n:]
		}
	}
}

func TestDraw(t *testing.T) {
	for text, want := range map[string]string{
		"\x1b[31mred\x1b[0m \x1b[1;38;5;8mx": "\x1b[31mred\x1b[0m \x1b[1;38;5;8mx",
		"\x1b[H\x1b[2J\x1b[K\x1b[?25l":       "\x1b[H\x1b[2J\x1b[K\x1b[?25l",
		"\x1b]52;c;geheim\x07":               "�]52;c;geheim�",
		"\x1b[6n\x1bc\x1b[5i":                "�[6n�c�[5i",
	} {
		for _, plain := range []bool{false, true} {
			file, err := os.Create(t.TempDir() + "/screen")
			if err != nil {
				t.Fatal(err)
			}
			w := Draw(&Screen{File: file})
			if plain {
				w, want = &Screen{File: file}, strings.ReplaceAll(text, "\x1b", "�")
				want = strings.ReplaceAll(want, "\x07", "�")
			}
			if _, err := io.WriteString(w, text); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(file.Name()); err != nil || string(got) != want {
				t.Errorf("%q: %q, want %q", text, got, want)
			}
			_ = file.Close()
		}
	}
	if w := Guard(&bytes.Buffer{}); fmt.Sprintf("%T", w) != "*bytes.Buffer" {
		t.Errorf("a buffer became %T", w)
	}
}
