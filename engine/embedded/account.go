package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who runs the server when we are root: PostgreSQL refuses to run as root. nil: ourselves.
type account struct{ uid, gid int }

// chooseAccount takes the owner of an existing data directory, so that its files stay readable to the server.
func chooseAccount(data string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Stat(data); err == nil {
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 {
			if _, err := user.LookupId(strconv.Itoa(int(owner.Uid))); err != nil {
				return nil, fmt.Errorf("%s belongs to user number %d, who has no account here: give all of it to "+
					"an account (chown -R)", data, owner.Uid)
			}
			return &account{int(owner.Uid), int(owner.Gid)}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ := strconv.Atoi(u.Uid)
			gid, _ := strconv.Atoi(u.Gid)
			return &account{uid, gid}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no account postgres or nobody to run it as: " +
		"use an ordinary account")
}

// own gives a path to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// reaches tells whether the account can get to a folder. We can.
func (a *account) reaches(dir string) bool { return a == nil || passable(dir) }

// passable tells whether any account can pass through dir and every parent of it.
func passable(dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// openFolder makes a folder that every account may pass, whatever the umask. An existing one keeps its mode.
func openFolder(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := openFolder(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // for the server's account
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(dir, 0o755) //nolint:gosec // for the server's account
}
