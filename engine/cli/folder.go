package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// folder is a file system out of which no path leads, not through a link either. Opening never waits: a pipe is no file
// here.
type folder struct {
	root *os.Root // open as long as the folder is used; nil: it cannot be opened
	err  error
}

// openFolder opens a folder. What is wrong with it is said by the first file that is asked for.
func openFolder(dir string) fs.FS {
	root, err := os.OpenRoot(dir)
	return folder{root, err}
}

func (f folder) Open(name string) (fs.File, error) {
	if err := f.check("open", name); err != nil {
		return nil, err
	}
	file, err := f.root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, leading(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("it is not an ordinary file")}
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

func (f folder) Stat(name string) (fs.FileInfo, error) {
	if err := f.check("stat", name); err != nil {
		return nil, err
	}
	info, err := f.root.Stat(filepath.FromSlash(name))
	return info, leading(err)
}

func (f folder) check(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if f.root == nil {
		err := f.err
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// leading says in plain words that a path leads out of a folder.
func leading(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok && strings.Contains(p.Err.Error(), "escapes from parent") {
		p.Err = errors.New("a link in this path leads out of the folder: put the file itself there")
	}
	return err
}

// writeInto writes a new file of a folder, with the folders above it. Nothing is written through a link that leads out.
func writeInto(root *os.Root, name string, data []byte) error {
	name = filepath.FromSlash(name)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return leading(err)
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return leading(err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = root.Remove(name)
	}
	return err
}
