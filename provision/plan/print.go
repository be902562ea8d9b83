package plan

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Style is how a plan is printed.
type Style struct {
	Width   int  // of the page; 0 is 80
	Color   bool // for a terminal
	Verbose bool // also unmanaged objects and settings one by one
	Hints   bool // suggest commands: on a terminal only
	Whole   bool // consent is asked for the plan as a whole, not change by change
}

var (
	symbols = map[Action]string{Create: "+", Update: "~", Replace: "-/+", Delete: "-"}
	words   = map[Action]string{
		Create: "will be created", Update: "will be changed", Replace: "will be replaced",
		Delete: "will be deleted",
	}
)

const (
	red, green, yellow, cyan, dim, plain = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m", "\x1b[2m", "\x1b[0m"
)

var actionColor = map[Action]string{Create: green, Update: yellow, Replace: red, Delete: red}

type printer struct {
	strings.Builder
	Style
}

// Print writes the plan in Terraform's manner: what changes, then one summary line. It is quiet about what does not.
func (p Plan) Print(w io.Writer, style Style) error {
	if style.Width <= 0 {
		style.Width = 80
	}
	out := &printer{Style: style}
	out.reads(p.Reads)
	out.errors(p.Errors)
	for _, m := range p.Moved {
		out.wrap("", "Note  ", "      ",
			fmt.Sprintf("%s. What the last apply set there says nothing of the objects here, which count as new. "+
				"If it moved on purpose: cryptoviz apply --moved %s.", m, strings.ToLower(m.System)))
	}
	for _, n := range p.Notes {
		out.wrap("", "Note  ", "      ", n)
	}
	out.notes(p.Changes)
	for _, s := range systems {
		out.system(s.name, s.kinds, p.Changes)
	}
	out.left(p)
	out.WriteByte('\n')
	out.wrap("", "", "  ", p.Summary())
	out.blocked(p.Changes)
	if style.Hints {
		out.hints(p)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (o *printer) line(format string, args ...any) {
	o.WriteString(fmt.Sprintf(format, args...) + "\n")
}

func (o *printer) paint(color, s string) string {
	if !o.Color {
		return s
	}
	return color + s + plain
}

// reads tells what was looked at.
func (o *printer) reads(reads []Read) {
	for i, r := range reads {
		head := "      "
		if i == 0 {
			head = "Read  "
		}
		text := r.Text
		if !r.LeftOut {
			text += fmt.Sprintf(" (%s, %.2f s)", Counted(r.Requests, "request"), r.Seconds)
		}
		o.wrap("", o.paint(dim, fmt.Sprintf("%s%-12s", head, r.System)), strings.Repeat(" ", 18), text)
	}
}

// notes prints the remarks on objects that need no change.
func (o *printer) notes(changes []Change) {
	for _, c := range changes {
		if c.quiet() {
			for _, n := range o.told(c) {
				if c.Kind() != "engine" && !strings.Contains(n, c.Address) {
					n = Visible(c.Address) + ": " + n
				}
				o.wrap("", "Note  ", "      ", n)
			}
		}
	}
}

// told are the remarks on an object. What the server lacks is said once, when the engine's tables are made.
func (o *printer) told(c Change) []string {
	if c.Kind() == "engine" && c.Action != Create && !o.Verbose {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Notes), func(n string) bool {
		return slices.ContainsFunc(c.Diffs, func(d Diff) bool { return strings.HasPrefix(n, d.Name+": ") })
	})
}

// about is the remark that tells the difference of one attribute: it begins with its name.
func (c Change) about(attr string) string {
	for _, n := range c.Notes {
		if text, is := strings.CutPrefix(n, attr+": "); is {
			return text
		}
	}
	return ""
}

// quiet tells whether there is nothing to say of an object but its notes.
func (c Change) quiet() bool { return !c.Changes() && len(c.Findings) == 0 && !c.Adopt }

// errors tells what could not be read; many objects with one cause are one line.
func (o *printer) errors(errs []ReadError) {
	if len(errs) > 0 {
		o.WriteByte('\n')
	}
	var texts []string
	addresses := map[string][]string{}
	for _, e := range errs {
		if addresses[e.Text] == nil {
			texts = append(texts, e.Text)
		}
		addresses[e.Text] = append(addresses[e.Text], e.Address)
	}
	for _, text := range texts {
		names := addresses[text]
		who := strings.Join(names, ", ")
		if len(names) > listed {
			who = fmt.Sprintf("%s and %d more", strings.Join(names[:listed], ", "), len(names)-listed)
		}
		o.wrap("  ", o.paint(red, "✗ ")+"could not be read: ", "    ", who+": "+text)
	}
}

func (o *printer) system(name string, kinds []string, changes []Change) {
	headed := false
	for _, c := range changes {
		if !slices.Contains(kinds, c.Kind()) || c.quiet() && (!o.Verbose || len(c.Extra) == 0) {
			continue
		}
		if !headed {
			o.line("\n%s", name)
			headed = true
		}
		o.change(c)
	}
}

func (o *printer) change(c Change) {
	symbol := symbols[c.Action]
	color := actionColor[c.Action]
	switch {
	case c.Impossible():
		symbol, color = "✗", red
	case c.Class() == Destroys:
		symbol, color = "!", red
	case c.Action == None && c.Adopt:
		symbol = "="
	case c.Action == None:
		symbol = " "
	case c.Drifted():
		symbol, color = "≠", yellow
	}
	head := strings.TrimSpace(Visible(c.Address) + " " + c.headline())
	if pad := o.Width - len(c.Where) - utf8.RuneCountInString(head) - utf8.RuneCountInString(symbol) - 3; pad > 0 {
		o.line("  %s %s%s%s", o.paint(color, symbol), head, strings.Repeat(" ", pad), o.paint(dim, c.Where))
	} else {
		o.wrap("  ", o.paint(color, symbol)+" ", "      ", head+" "+c.Where)
	}
	o.findings(c, "")
	o.attrs(c)
	if !c.quiet() {
		for _, n := range o.told(c) {
			o.wrap("      ", o.paint(dim, "note: "), "  ", n)
		}
	}
	if o.Verbose {
		for _, e := range c.Extra {
			o.line("      %s", o.paint(dim, fmt.Sprintf("%s = %s   not in pipeline.hcl, left alone", Visible(e.Name),
				shown(e.Value, e.Secret))))
		}
	}
}

// headline says what an object is found to be, and what becomes of it.
func (c Change) headline() string {
	will := words[c.Action]
	switch {
	case c.DeletedOutside():
		will = "was deleted outside since the last apply, will be created again"
	case c.onlyDrifted():
		will = "changed outside cryptoviz; will be reverted"
	case c.Drifted():
		will = "changed outside cryptoviz; " + will
	case c.Adopt && c.Action == None:
		will = "exists already, will be adopted"
	case c.Adopt && c.Action == Update:
		will = "exists already, will be adopted and changed"
	case c.Adopt:
		will = "exists already, " + will
	case c.Action == None && len(c.Findings) > 0:
		will = "is affected"
	}
	if c.Impossible() {
		will = strings.Replace(will, "will be", "cannot be", 1)
	}
	if c.Waits != "" {
		will += ", but waits for " + Visible(c.Waits)
	}
	return will
}

// onlyDrifted tells whether apply only sets back what was changed outside.
func (c Change) onlyDrifted() bool {
	return c.Action == Update && !slices.ContainsFunc(c.Diffs, func(d Diff) bool { return d.Cause != Drift })
}

// created are the attributes of a new object that are worth a line; the rest is counted.
const createdLines = 16

func (o *printer) attrs(c Change) {
	if c.Action == Delete {
		return
	}
	all := c.Diffs
	if c.Action == Create { // what is a digest alone tells nobody anything
		all = slices.DeleteFunc(slices.Clone(all), func(d Diff) bool {
			return d.New != "" && content(d.New, d.NewRaw) == ""
		})
	}
	diffs := all
	if c.Action == Create && !o.Verbose && len(diffs) > createdLines {
		diffs = slices.Clone(diffs[:createdLines-1])
		for _, d := range all[createdLines-1:] {
			if slices.ContainsFunc(c.Findings, func(f Finding) bool { return f.Attr == d.Name }) {
				diffs = append(diffs, d)
			}
		}
	}
	width := 0
	for _, d := range diffs {
		width = max(width, utf8.RuneCountInString(Visible(d.Name)))
	}
	width = min(width, 32)
	for _, d := range diffs {
		text := c.about(d.Name)
		if text == "" {
			text = o.value(d)
		}
		if d.Cause == Drift && !c.onlyDrifted() {
			text += " (changed outside)"
		}
		o.wrap("      ", fmt.Sprintf("%-*s  ", width, Visible(d.Name)), "    ", text)
		o.findings(c, d.Name)
	}
	if hidden := len(all) - len(diffs); hidden > 0 {
		o.line("      %s", o.paint(dim, "and "+Counted(hidden, "more attribute")))
	}
}

// findings prints those of one attribute, or of the object.
func (o *printer) findings(c Change, attr string) {
	for _, f := range c.Findings {
		if f.Attr != attr && !(attr == "" && !slices.ContainsFunc(c.Diffs, func(d Diff) bool {
			return d.Name == f.Attr
		})) {
			continue
		}
		color := map[Class]string{Destroys: red, Impossible: red, Risky: yellow, Slow: yellow}[f.Class]
		text := f.Text
		if amount, when := f.Loss.beside(text); amount != "" {
			text += ": " + amount + when
		} else {
			text += when
		}
		o.wrap("        ", o.paint(color, fmt.Sprintf("%s %s", f.Code, f.Class))+": ", "  ", text)
	}
}

const listed = 3 // so many names are shown; more are counted

// left tells of what exists and is left alone.
func (o *printer) left(p Plan) {
	list := func(names []string, one, many string) {
		if len(names) == 0 {
			return
		}
		what := fmt.Sprintf("%d %s", len(names), map[bool]string{true: one, false: many}[len(names) == 1])
		if o.Verbose || len(names) <= listed {
			what += ": " + Visible(strings.Join(names, ", "))
		}
		o.wrap("", "", "  ", what+".")
	}
	if len(p.Unmanaged)+len(p.Orphans) > 0 {
		o.WriteByte('\n')
	}
	list(p.Unmanaged, "object is not in pipeline.hcl and is left alone",
		"objects are not in pipeline.hcl and are left alone")
	list(p.Orphans, "object left pipeline.hcl and is left alone", "objects left pipeline.hcl and are left alone")
}

// Summary is the last line of a plan.
func (p Plan) Summary() string {
	n, adopt, impossible, waits := map[Action]int{}, 0, 0, 0
	for _, c := range p.Changes {
		switch {
		case c.Impossible():
			impossible++
		case c.Waits != "":
			waits++
		case c.Adopt && c.Action == None:
			adopt++
		default:
			n[c.Action]++
		}
	}
	read, leftOut := p.systems()
	if p.Pending() == 0 {
		switch {
		case len(p.Errors) > 0:
			return "No changes in what could be read; " + Counted(len(p.Errors), "object") + " could not." + leftOut
		case adopt > 0:
			return "No changes" + read + ". " + Counted(adopt, "object") +
				" to adopt: apply starts managing what matches and changes nothing else." + leftOut
		case leftOut != "":
			return "No changes" + read + "." + leftOut
		}
		return "No changes. Everything matches pipeline.hcl."
	}
	out := fmt.Sprintf("Plan: %d to create, %d to change, %d to destroy.", n[Create], n[Update], n[Delete])
	if n[Replace] > 0 {
		out = fmt.Sprintf("Plan: %d to create, %d to change, %d to replace, %d to destroy.", n[Create], n[Update],
			n[Replace], n[Delete])
	}
	if impossible > 0 {
		out += fmt.Sprintf(" %d cannot be done.", impossible)
	}
	if waits > 0 {
		out += fmt.Sprintf(" %d must wait for that.", waits)
	}
	if adopt > 0 {
		out += fmt.Sprintf(" %d to adopt.", adopt)
	}
	if len(p.Errors) > 0 {
		out += " " + Counted(len(p.Errors), "object") + " could not be read."
	}
	return out + leftOut
}

// systems says what was read, and what was left out: " to Kafka and PostgreSQL", " Grafana was left out.". Both are
// empty when nothing was.
func (p Plan) systems() (read, leftOut string) {
	var names, others []string
	for _, r := range p.Reads {
		if r.LeftOut {
			others = append(others, r.System)
		} else {
			names = append(names, r.System)
		}
	}
	if len(others) == 0 {
		return "", ""
	}
	return " to " + strings.Join(names, " and "), " " + strings.Join(others, " and ") + " was left out."
}

// blocked says what keeps the plan, or parts of it, from being applied.
func (o *printer) blocked(changes []Change) {
	var impossible, destroys []string
	for _, c := range changes {
		switch c.Class() {
		case Impossible:
			impossible = append(impossible, c.Address)
		case Destroys:
			for _, k := range c.Needs() {
				destroys = append(destroys, k.String())
			}
		default:
		}
	}
	if len(impossible) > 0 {
		o.wrap("", "", "  ", "Cannot be done as pipeline.hcl wants it: "+strings.Join(impossible, ", ")+".")
	}
	if o.Whole {
		return
	}
	if len(destroys) > 0 {
		o.wrap("", "", "  ", "Destroys data. Apply leaves "+
			map[bool]string{true: "this", false: "each of these"}[len(destroys) == 1]+" out unless it is allowed:")
	}
	for _, consent := range destroys {
		o.line("  --allow %s", Visible(consent))
	}
}

func (o *printer) hints(p Plan) {
	if !o.Verbose && len(p.Unmanaged) > listed {
		o.line("What is left alone, one by one: cryptoviz plan -v")
	}
	for _, c := range p.Changes {
		for _, f := range c.Findings {
			if severity[f.Class] >= severity[Risky] {
				o.line("More on a code: cryptoviz explain %s", f.Code)
				return
			}
		}
	}
}
