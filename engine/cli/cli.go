// Package cli is the command line: one file a command. It is where engine and provision meet.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/terminal"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// IO is what a command reads and writes outside the systems: streams and the environment.
type IO struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) (string, bool)
	Bundle         fs.FS  // the shipped pipeline, for init
	Version        string // "0.1.0" or "v0.1.0"
}

// exit ends the program with a code after everything has been said already.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Main runs one command and returns the exit code: 0, or 1 after an error.
func Main(ctx context.Context, args []string, w IO) int {
	w.Stdout, w.Stderr = terminal.Guard(w.Stdout), terminal.Guard(w.Stderr)
	e := &env{IO: w}
	root := e.root()
	root.SetArgs(longFlags(root, args))
	root.SetIn(w.Stdin)
	root.SetOut(w.Stdout)
	root.SetErr(w.Stderr)
	err := root.ExecuteContext(ctx)
	code := exit(1)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		_, _ = fmt.Fprintln(w.Stderr, "Interrupted.")
	default:
		_, _ = fmt.Fprintln(w.Stderr, "Error: "+terminal.Visible(err.Error()))
	}
	return int(code)
}

// longFlags lets -out stand for --out, as users of Terraform write it: for the whole name of a flag that the command
// has.
func longFlags(root *cobra.Command, args []string) []string {
	out := slices.Clone(args)
	c := root
	c.InitDefaultVersionFlag()
	c.InitDefaultHelpFlag() // it also collects the flags of all levels in c.Flags()
	for i := 0; i < len(out) && out[i] != "--"; i++ {
		if len(out[i]) < 2 || out[i][0] != '-' {
			if sub, _, err := c.Find(out[i : i+1]); err == nil {
				c = sub
				c.InitDefaultHelpFlag()
			}
			continue
		}
		name, _, joined := strings.Cut(strings.TrimLeft(out[i], "-"), "=")
		f := c.Flags().Lookup(name)
		if len(name) == 1 {
			f = c.Flags().ShorthandLookup(name)
		} else if f != nil && out[i][1] != '-' {
			out[i] = "-" + out[i]
		}
		if f != nil && f.NoOptDefVal == "" && !joined {
			i++ // its value
		}
	}
	return out
}

const (
	defaultFile  = "pipeline.hcl"
	defaultState = ".cryptoviz"
)

// env is what all commands share: the streams and the global flags.
type env struct {
	IO
	file     string
	vars     []string
	varFiles []string
	logForm  string
	logLevel string
	noColor  bool
	state    string
	rolesURL spec.Secret // of the superuser of a running up, who makes roles; empty without one
	idle     bool        // the state directory has data, and no up runs on it
}

func (e *env) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "cryptoviz",
		Short: "A declarative, real-time crypto market-data pipeline",
		Long: `cryptoviz makes Kafka, PostgreSQL/TimescaleDB and Grafana match pipeline.hcl, and runs the pipeline:

  sources -> scheduler -> producers -> Kafka -> workers -> raw table -> 00:05 UTC rollup -> hourly table

Everything on this machine, with nothing installed:   cryptoviz up
The same without a network:                           cryptoviz up --simulate
Against your own Kafka and PostgreSQL:                cryptoviz plan, cryptoviz apply, cryptoviz run

Flags may be written with one dash, as in Terraform: -out is --out.`,
		SilenceErrors: true, SilenceUsage: true,
		Version:           strings.TrimPrefix(e.Version, "v"),
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&e.file, "file", "f", defaultFile,
		"the pipeline `PATH`; sources, sql and dashboards are found next to it")
	flags.StringArrayVar(&e.vars, "var", nil, "value of a variable, `NAME=VALUE`; may be repeated")
	flags.StringArrayVar(&e.varFiles, "var-file", nil,
		"`FILE` of variable values, name = value a line; may be repeated")
	flags.StringVar(&e.logForm, "log-format", "text", "`FORM` of the log lines: text or json")
	flags.StringVar(&e.logLevel, "log-level", "info", "least `LEVEL` that is logged: debug, info, warn or error")
	flags.BoolVar(&e.noColor, "no-color", false, "no colours (also: the variable NO_COLOR)")
	flags.StringVar(&e.state, "state", defaultState,
		"`DIR` where up keeps its Kafka and PostgreSQL in; all commands but run use them while up runs, \"\" for none")
	root.AddGroup(&cobra.Group{ID: "edit", Title: "Write a pipeline:"}, &cobra.Group{
		ID:    "match",
		Title: "Make the systems match it:",
	}, &cobra.Group{ID: "run", Title: "Run it and look:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("edit", e.newInit(), e.newValidate(), e.newFmt())
	add("match", e.newPlan(), e.newApply(), e.newShow(), e.newExplain(), e.newImport(), e.newGraph(), e.newDestroy())
	add("run", e.newUp(), e.newRun(), e.newStatus(), e.newQuery(), e.newRollup())
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w: see %s --help", err, c.CommandPath())
	})
	return root
}

// load reads the pipeline, and prints what is wrong with it.
func (e *env) load() (*spec.Pipeline, error) { return e.loadWith(false) }

// loadWith is load, with what is no error, too.
func (e *env) loadWith(warnings bool) (*spec.Pipeline, error) {
	p, diags, err := e.read()
	if err != nil {
		return nil, err
	}
	if diags.HasErrors() || warnings && len(diags.Diags) > 0 {
		if err := diags.Write(terminal.Draw(e.Stderr), e.color(e.Stderr), e.width(e.Stderr)); err != nil {
			return nil, err
		}
	}
	if diags.HasErrors() {
		return nil, fmt.Errorf("%s has %s: nothing was touched", e.file, count(diags.Errors(), "error"))
	}
	return p, nil
}

func (e *env) read() (*spec.Pipeline, *diag.Diagnostics, error) {
	opt := load.Options{Env: e.Getenv, Vars: map[string]string{}, Version: strings.TrimPrefix(e.Version, "v")}
	for _, v := range e.vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			return nil, nil, fmt.Errorf("--var %s has no value: write --var NAME=VALUE", units.Clip(v))
		}
		opt.Vars[strings.TrimSpace(name)] = value
	}
	for _, name := range e.varFiles {
		src, err := readFile(name)
		if err != nil {
			return nil, nil, fmt.Errorf("read --var-file: %w", err)
		}
		opt.VarFiles = append(opt.VarFiles, load.VarFile{Name: name, Src: src})
	}
	p, diags := load.Load(openFolder(filepath.Dir(e.file)), filepath.Base(e.file), opt)
	return p, diags, nil
}

// readFile reads a file that may be of any size, up to one byte more than the language allows.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, limits.MaxFile+1))
}

func (e *env) color(w io.Writer) bool {
	if set, _ := e.Getenv("NO_COLOR"); set != "" || e.noColor {
		return false
	}
	return e.draws(w)
}

// draws tells whether w is a terminal that obeys escape sequences.
func (e *env) draws(w io.Writer) bool {
	kind, _ := e.Getenv("TERM")
	return kind != "dumb" && isTerminal(w)
}

func (e *env) width(w io.Writer) uint {
	if f := terminal.File(w); f != nil {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 20 {
			return uint(n)
		}
	}
	return 80
}

// height is how many lines a terminal shows.
func (e *env) height(w io.Writer) int {
	if f := terminal.File(w); f != nil {
		if _, n, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return n
		}
	}
	return 24
}

func isTerminal(w any) bool {
	f := terminal.File(w)
	return f != nil && term.IsTerminal(int(f.Fd()))
}

// logger writes to w in the form that the flags ask for.
func (e *env) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(e.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %s is not known: use debug, info, warn or error", units.Clip(e.logLevel))
	}
	opt := &slog.HandlerOptions{Level: level, ReplaceAttr: inUTC}
	switch e.logForm {
	case "text":
		return slog.New(slog.NewTextHandler(w, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opt)), nil
	}
	return nil, fmt.Errorf("--log-format %s is not known: use text or json", units.Clip(e.logForm))
}

// inUTC shows every time in UTC, as slots and rows are.
func inUTC(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindTime {
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	}
	return a
}

// commandLine is a command with the flags that lead to this pipeline and its data, for a shell. The values of --var
// stay out: they may be secret.
func (e *env) commandLine(args ...string) string {
	out := append([]string{"cryptoviz"}, args...)
	if e.file != defaultFile {
		out = append(out, "--file", e.file)
	}
	if e.state != defaultState {
		out = append(out, "--state", e.state)
	}
	for _, name := range e.varFiles {
		out = append(out, "--var-file", name)
	}
	for i := range out {
		out[i] = shellWord(out[i])
	}
	return strings.Join(out, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// shellWord writes a text so that a shell reads it as one word.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func (e *env) print(format string, args ...any) { _, _ = fmt.Fprintf(e.Stdout, format, args...) }

func (e *env) note(format string, args ...any) { _, _ = fmt.Fprintf(e.Stderr, format+"\n", args...) }

// confirm asks a question that only the exact answer agrees to.
func (e *env) confirm(question, answer string) (bool, error) {
	if !isTerminal(e.Stdin) {
		return false, nil
	}
	_, _ = fmt.Fprintf(e.Stderr, "%s\n  Only %q is accepted: ", question, answer)
	var line strings.Builder
	one := make([]byte, 1)
	for {
		n, err := e.Stdin.Read(one)
		if n == 1 && one[0] != '\n' {
			line.WriteByte(one[0])
			continue
		}
		if n == 1 || errors.Is(err, io.EOF) {
			return strings.TrimSpace(line.String()) == answer, nil
		}
		if err != nil {
			return false, fmt.Errorf("read the answer: %w", err)
		}
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func oneOf(flag, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("--%s %s is not known: use %s", flag, units.Clip(value), strings.Join(allowed, ", "))
}
