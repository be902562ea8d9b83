package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A log has about maxLog bytes at most, and one older part of that size is kept for each number up to keptLogs: NAME.1
// is newer than NAME.2.
const (
	maxLog   = 10 << 20
	keptLogs = 2
)

// RotateLogs keeps the logs in the directory short until ctx ends.
func (s *State) RotateLogs(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		for _, name := range []string{"cryptoviz.log", "postgres.log"} {
			if err := rotate(filepath.Join(s.Dir, name), maxLog); err != nil {
				log.Warn("a log could not be rotated", "error", err.Error())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// rotate empties a log that is longer than limit, after its text was copied. The file itself stays: another process,
// which may outlive this one, appends to it, so a library that renames it cannot be used. What is written between the
// copy and the cut is lost.
func rotate(path string, limit int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil || info.Size() <= limit {
		return err
	}
	old := func(n int) string { return fmt.Sprintf("%s.%d", path, n) }
	for n := keptLogs; n > 1; n-- {
		if err := os.Rename(old(n-1), old(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	to, err := os.OpenFile(old(1), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	// Only the end is copied: a log that grew far over the limit between two looks must not fill the disk twice.
	if _, err := f.Seek(max(0, info.Size()-2*limit), io.SeekStart); err != nil {
		return errors.Join(err, to.Close())
	}
	_, err = io.Copy(to, f)
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	return f.Truncate(0)
}
