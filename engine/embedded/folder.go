package embedded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// openFolderOfOurs opens a state directory. One in which another account could change something is refused: it holds
// passwords, and a server's data. So are links in it, which would make us write elsewhere.
func openFolderOfOurs(dir string) (*os.Root, error) {
	if info, err := os.Lstat(dir); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a link: name the folder that it leads to, or another one, with --state DIR", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if err := checkFolder(root, dir); err != nil {
		_ = root.Close()
		return nil, err
	}
	return root, nil
}

func checkFolder(root *os.Root, dir string) error {
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	const other = "or use another one with --state DIR (--state \"\" for none)"
	if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user number %d, and this is number %d: be that user, give it to this one "+
			"(chown), %s", dir, uid, os.Geteuid(), other)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("other accounts may write into %s (its mode is %#o): take that away with chmod go-w %s, %s",
			dir, mode, dir, other)
	}
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ours(e.Name()) && !e.Type().IsRegular() && !e.IsDir() {
			return fmt.Errorf("%s/%s is a link, a pipe or a device, and no ordinary file: remove it, %s", dir, e.Name(),
				other)
		}
	}
	return nil
}

func ours(name string) bool {
	return name == "lock" || name == "kafka" || name == "postgres" || strings.HasPrefix(name, "state.json") ||
		strings.Contains(name, ".log")
}

// maxState is far more than state.json ever has.
const maxState = 1 << 20

// readState reads state.json, and closes it to other accounts: it may have been written by hand.
func readState(root *os.Root) ([]byte, error) {
	f, err := root.OpenFile(stateFile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || info.Mode().Perm()&0o077 != 0 {
		if err = errors.Join(err, f.Chmod(0o600)); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, maxState))
}
