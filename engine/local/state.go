package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BusyError means that another process uses the state directory.
type BusyError struct {
	Dir string
	PID int
}

// Error names the other process.
func (e *BusyError) Error() string {
	return fmt.Sprintf("cryptoviz is already running in %s (process %d): stop it, or use another directory with --state", e.Dir, e.PID)
}

// ModeError means that a directory holds data of another mode.
type ModeError struct{ Dir, Have, Want string }

// Error gives the choices.
func (e *ModeError) Error() string {
	return fmt.Sprintf("%s holds %s data and cannot become %s: the two must never mix. Use another directory (--state DIR), or start over with --fresh, which deletes it", e.Dir, e.Have, e.Want)
}

// State is an open state directory. One process holds it at a time.
type State struct {
	Dir  string
	lock *os.File
	Data StateData
}

// StateData is what state.json keeps.
type StateData struct {
	Mode         string    `json:"mode"` // live, simulated or recorded; "" until it is set
	Created      time.Time `json:"created"`
	Virtual      time.Time `json:"virtual,omitzero"` // newest time of a sped-up clock
	PostgresDir  string    `json:"postgres_dir,omitempty"`
	PostgresPort int       `json:"postgres_port,omitempty"`
	KafkaPort    int       `json:"kafka_port,omitempty"`
	Password     string    `json:"password,omitempty"` // of the private PostgreSQL, which listens on loopback only
}

// LockState opens, and makes if need be, a state directory.
func LockState(dir string) (*State, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open the state directory %s: %w", dir, err)
	}
	if err := os.MkdirAll(abs, 0o755); err != nil {
		return nil, fmt.Errorf("open the state directory: %w: choose one that you may write with --state DIR", err)
	}
	f, err := os.OpenFile(filepath.Join(abs, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w: choose one that you may write with --state DIR", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		text := make([]byte, 20)
		n, _ := f.Read(text)
		_ = f.Close()
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
		return nil, &BusyError{abs, pid}
	}
	s := &State{Dir: abs, lock: f}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid()))); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write the state directory %s: %w", abs, err)
	}
	text, err := os.ReadFile(s.file())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Data.Created = time.Now().UTC().Truncate(time.Second)
		err = s.Save()
	case err == nil:
		if err = json.Unmarshal(text, &s.Data); err != nil {
			err = fmt.Errorf("read %s: %w: it is damaged; move the directory away, or start over with --fresh", s.file(), err)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

func (s *State) file() string { return filepath.Join(s.Dir, "state.json") }

// Save writes state.json in one step.
func (s *State) Save() error {
	text, err := json.MarshalIndent(s.Data, "", "  ")
	if err != nil {
		return err
	}
	tmp := s.file() + ".new"
	if err := os.WriteFile(tmp, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	if err := os.Rename(tmp, s.file()); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	return nil
}

// SetMode makes the directory live, simulated or recorded, for good.
func (s *State) SetMode(mode string) error {
	if s.Data.Mode != "" && s.Data.Mode != mode {
		return &ModeError{s.Dir, s.Data.Mode, mode}
	}
	s.Data.Mode = mode
	return s.Save()
}

// Clear deletes everything in the directory but the lock. It is ours: LockState found or made its state.json.
func (s *State) Clear() error {
	if dir := s.Data.PostgresDir; dir != "" && !strings.HasPrefix(dir, s.Dir) {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("clear %s: %w", dir, err)
		}
	}
	for _, name := range []string{"postgres", "kafka", "state.json", "postgres.log"} {
		if err := os.RemoveAll(filepath.Join(s.Dir, name)); err != nil {
			return fmt.Errorf("clear %s: %w", s.Dir, err)
		}
	}
	s.Data = StateData{Created: time.Now().UTC().Truncate(time.Second)}
	return s.Save()
}

// Close gives the directory free.
func (s *State) Close() error { return s.lock.Close() }

// FreeSpace returns the free and the total bytes of the file system that holds dir.
func FreeSpace(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("read free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
