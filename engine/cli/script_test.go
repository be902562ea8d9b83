package cli

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/testscript"
)

var updateScripts = flag.Bool("update", false, "write what the scripts compare with anew")

const testRoot = "CRYPTOVIZ_TEST_ROOT" // the folder of the repository, for the command

// TestMain makes this binary the command cryptoviz of the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cryptoviz": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		bundle, err := shipped(os.Getenv(testRoot))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		stdout, flushOut := steady(os.Stdout)
		stderr, flushErr := steady(os.Stderr)
		code := Main(ctx, os.Args[1:], IO{Stdin: os.Stdin, Stdout: stdout, Stderr: stderr, Getenv: os.LookupEnv, Bundle: bundle, Version: "0.1.0"})
		flushOut()
		flushErr()
		os.Exit(code)
	}})
}

// TestScripts runs testdata/script/*.txtar, each in a folder of its own. Besides testscript's own commands there are
//
//	cryptoviz ARGS...      the program
//	bundle DIR             copies the shipped pipeline into DIR
//	edit FILE OLD NEW      replaces a piece of a file, which is there once; \n is a line's end
//	mode FILE PERM         checks the permissions, such as 640
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *updateScripts, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv(testRoot, root)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"bundle": cmdBundle, "edit": cmdEdit, "mode": cmdMode},
	})
}

// shipped is the bundle that main.go embeds: it is read from there.
func shipped(root string) (fs.FS, error) {
	src, err := os.ReadFile(filepath.Join(root, "main.go"))
	if err != nil {
		return nil, err
	}
	_, rest, found := strings.Cut(string(src), "\n//go:embed ")
	line, _, _ := strings.Cut(rest, "\n")
	if !found {
		return nil, fmt.Errorf("main.go embeds nothing")
	}
	out, disk := fstest.MapFS{}, os.DirFS(root)
	for pattern := range strings.FieldsSeq(line) {
		err := fs.WalkDir(disk, pattern, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(disk, path)
			out[path] = &fstest.MapFile{Data: data, Mode: 0o644}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func cmdBundle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: bundle DIR")
	}
	files, err := shipped(ts.Getenv(testRoot))
	ts.Check(err)
	ts.Check(os.CopyFS(ts.MkAbs(args[0]), files))
}

func cmdEdit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	text, was := ts.ReadFile(args[0]), strings.ReplaceAll(args[1], `\n`, "\n")
	if n := strings.Count(text, was); n != 1 {
		ts.Fatalf("%s has %q %d times", args[0], was, n)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, was, strings.ReplaceAll(args[2], `\n`, "\n"), 1)), 0o600))
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE PERM")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if want, err := strconv.ParseUint(args[1], 8, 32); err != nil || info.Mode().Perm() != fs.FileMode(want) {
		ts.Fatalf("%s has the permissions %o, want %s", args[0], info.Mode().Perm(), args[1])
	}
}
