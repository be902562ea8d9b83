package cli

import (
	"regexp"
	"strings"
)

var linkForm = regexp.MustCompile(`\[([^\]]+)\]\([^)]+\)`)

// forTerminal sets a section of the reference for 80 columns: paragraphs folded, examples indented, and of each row of
// a table the name with its type and default, and below it the text.
func forTerminal(markdown string) string {
	var out, paragraph strings.Builder
	end := func() {
		if paragraph.Len() > 0 {
			out.WriteString(fold(paragraph.String(), 80) + "\n\n")
			paragraph.Reset()
		}
	}
	example, table := false, false
	for line := range strings.Lines(linkForm.ReplaceAllString(markdown, "$1")) {
		line = strings.TrimRight(line, "\n")
		row := strings.HasPrefix(line, "|") && !example
		if table && !row {
			out.WriteByte('\n')
		}
		table = row
		switch {
		case strings.HasPrefix(line, "```"):
			end()
			if example = !example; !example {
				out.WriteByte('\n')
			}
		case example:
			out.WriteString(strings.TrimRight("    "+line, " ") + "\n")
		case row:
			end()
			cells := strings.Split(strings.Trim(line, "| "), " | ")
			if !strings.HasPrefix(cells[0], "`") {
				continue
			}
			head, rest := "  "+strings.Trim(cells[0], "`"), cells[1:]
			if len(cells) == 4 {
				head, rest = head+"  ("+cells[1]+"; "+byDefault(cells[2])+")", cells[3:]
			}
			text := strings.Join(rest, "; ")
			out.WriteString(head + "\n      " + strings.ReplaceAll(fold(text, 74), "\n", "\n      ") + "\n")
		case strings.HasPrefix(line, "### "):
			end()
			out.WriteString(strings.TrimPrefix(line, "### ") + "\n\n")
		case line == "", strings.HasPrefix(line, "- "):
			end()
			paragraph.WriteString(line)
		default:
			paragraph.WriteString(" " + line)
		}
	}
	end()
	return strings.TrimRight(out.String(), "\n") + "\n"
}

func byDefault(cell string) string {
	if cell == "required" {
		return cell
	}
	return "default: " + strings.Trim(cell, "`")
}
