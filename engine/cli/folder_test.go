package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPathsStayInTheFolder: no file outside of the pipeline's folder is read, whatever leads to it, and nothing is waited on.
func TestPathsStayInTheFolder(t *testing.T) {
	const leads = "a link in this path leads out of the folder"
	named := map[string]string{ // what a stranger's file names, in each place that names a file
		"a definition": `source "kraken" { definition = "PATH" }`,
		"a dashboard":  `dashboard "d" { file = "PATH" }`,
		"a query":      `view "v" { query = file("PATH") }`,
	}
	for name, c := range map[string]struct {
		path, want string
		plant      func(dir, secret string) error
	}{
		"a link":                  {"sub/x", leads, func(dir, secret string) error { return os.Symlink(secret, filepath.Join(dir, "sub", "x")) }},
		"a link upward":           {"sub/x", leads, func(dir, _ string) error { return os.Symlink("../../outside/secret", filepath.Join(dir, "sub", "x")) }},
		"a folder that is a link": {"out/secret", leads, func(dir, secret string) error { return os.Symlink(filepath.Dir(secret), filepath.Join(dir, "out")) }},
		"a link to a link": {"sub/x", leads, func(dir, secret string) error {
			return errorOf(os.Symlink(secret, filepath.Join(dir, "y")), os.Symlink("../y", filepath.Join(dir, "sub", "x")))
		}},
		"out and back in":    {"out/sub/in", leads, func(dir, _ string) error { return os.Symlink("../folder", filepath.Join(dir, "out")) }},
		"a device":           {"sub/x", leads, func(dir, _ string) error { return os.Symlink("/dev/zero", filepath.Join(dir, "sub", "x")) }},
		"a link in a circle": {"sub/x", "", func(dir, _ string) error { return os.Symlink("x", filepath.Join(dir, "sub", "x")) }},
		"a pipe":             {"sub/x", "not an ordinary file", func(dir, _ string) error { return syscall.Mkfifo(filepath.Join(dir, "sub", "x"), 0o600) }},
		"a folder":           {"sub", "is a folder", func(string, string) error { return nil }},
		"upward":             {"../outside/secret", "leaves the folder", func(string, string) error { return nil }},
		"upward from below":  {"sub/../../outside/secret", "leaves the folder", func(string, string) error { return nil }},
		"absolute":           {"/etc/hostname", "leaves the folder", func(string, string) error { return nil }},
		"a huge file":        {"sub/x", "larger than", func(dir, _ string) error { return hugeFile(filepath.Join(dir, "sub", "x")) }},
	} {
		for place, form := range named {
			t.Run(name+", "+place, func(t *testing.T) {
				parent := t.TempDir()
				dir, secret := filepath.Join(parent, "folder"), filepath.Join(parent, "outside", "secret")
				for file, text := range map[string]string{
					secret: "geheim = [", filepath.Join(dir, "sub", "in"): "geheim = [", filepath.Join(dir, "pipeline.hcl"): strings.ReplaceAll(form, "PATH", c.path),
				} {
					if err := errorOf(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.plant(dir, secret); err != nil {
					t.Fatal(err)
				}
				_, errs, code := command(t.Context(), "--file", filepath.Join(dir, "pipeline.hcl"), "validate")
				if said := strings.Join(strings.Fields(errs), " "); code != 1 || !strings.Contains(said, c.want) && (c.want != "larger than" || !strings.Contains(said, "more than")) || strings.Contains(said, "geheim") {
					t.Errorf("%d, want %q:\n%s", code, c.want, errs)
				}
			})
		}
	}
}

func errorOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func hugeFile(name string) error {
	return errorOf(os.WriteFile(name, nil, 0o600), os.Truncate(name, 1<<40))
}

// TestLinksWithinTheFolder are ordinary files: a folder that Kubernetes mounts is made of them.
func TestLinksWithinTheFolder(t *testing.T) {
	dir := t.TempDir()
	files, err := shipped("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "..data"), files); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pipeline.hcl", "sources", "sql", "dashboards"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, errs, code := command(t.Context(), "--file", filepath.Join(dir, "pipeline.hcl"), "validate"); code != 0 {
		t.Errorf("%d: %s", code, errs)
	}
}

// TestInitStaysInItsFolder: it writes nothing through a link, and all or nothing.
func TestInitStaysInItsFolder(t *testing.T) {
	files, err := shipped("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, link := range map[string]string{"a folder": "sources", "a file": "pipeline.hcl", "the last folder": "sql"} {
		parent := t.TempDir()
		dir, out := filepath.Join(parent, "mine"), filepath.Join(parent, "out")
		if err := errorOf(os.Mkdir(dir, 0o755), os.Mkdir(out, 0o755), os.Symlink(out, filepath.Join(dir, link))); err != nil {
			t.Fatal(err)
		}
		var errs buffer
		code := Main(context.Background(), []string{"init", dir}, IO{Stdin: strings.NewReader(""), Stdout: &buffer{}, Stderr: &errs, Bundle: files, Getenv: func(string) (string, bool) { return "", false }})
		if text := strings.ToLower(errs.String()); code != 1 || !strings.Contains(text, "nothing was written") {
			t.Errorf("%s: %d, %s", name, code, text)
		}
		written, err := os.ReadDir(out)
		made, err2 := os.ReadDir(dir)
		if err != nil || err2 != nil || len(written) > 0 || len(made) != 1 {
			t.Errorf("%s: outside %v, inside %v, %v %v", name, written, made, err, err2)
		}
	}
}
