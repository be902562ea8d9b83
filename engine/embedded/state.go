package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// BusyError means that another process uses the state directory.
type BusyError struct {
	Dir string
	PID int
}

// Error names the other process, if that is known.
func (e *BusyError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("cryptoviz is already running in %s: stop it, or use another directory with --state DIR",
			e.Dir)
	}
	return fmt.Sprintf("cryptoviz is already running in %s (process %d): stop it, or use another directory with "+
		"--state DIR", e.Dir, e.PID)
}

// ModeError means that a directory holds data of another mode.
type ModeError struct{ Dir, Have, Want string }

// Error gives the choices.
func (e *ModeError) Error() string {
	return fmt.Sprintf("%s holds %s data and cannot become %s: the two must never mix. Use another directory (--state "+
		"DIR), or start over with --fresh, which deletes it", e.Dir, e.Have, e.Want)
}

// State is an open state directory. One process holds it at a time.
type State struct {
	Dir  string
	root *os.Root // Dir: files are opened in it, never beside it
	lock *os.File
	mu   sync.Mutex // guards state.json, and changes of Data by Update
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

	// Of the private PostgreSQL, which listens on loopback only: of the owner of its database, of a role that reads it,
	// and of the superuser, who sets the server up and makes the roles of a pipeline.
	Password          string `json:"password,omitempty"`
	ReaderPassword    string `json:"reader_password,omitempty"`
	SuperuserPassword string `json:"superuser_password,omitempty"`

	KafkaPassword string `json:"kafka_password,omitempty"` // of the embedded Kafka's only user
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
	root, err := openFolderOfOurs(abs)
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w", err)
	}
	s, err := lockRoot(abs, root)
	if err != nil {
		_ = root.Close()
	}
	return s, err
}

func lockRoot(abs string, root *os.Root) (*State, error) {
	f, err := root.OpenFile("lock", os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w: choose one that you may write with --state DIR", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := holder(f)
		_ = f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the state directory %s: %w: choose one on a disk of this machine with "+
				"--state DIR", abs, err)
		}
		return nil, &BusyError{abs, pid}
	}
	s := &State{Dir: abs, root: root, lock: f}
	if err := s.read(); err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := rewrite(f, strconv.Itoa(os.Getpid())); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write the state directory %s: %w", abs, err)
	}
	return s, nil
}

// holder reads the process number in a lock file; 0 when there is none.
func holder(f *os.File) int {
	text := make([]byte, 20)
	n, _ := f.ReadAt(text, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	return pid
}

// rewrite gives an open file another text.
func rewrite(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return errors.Join(err, f.Truncate(int64(len(text))))
}

// read takes state.json over, or makes one in a directory that holds nothing of its kind: what is there is not ours.
func (s *State) read() error {
	text, err := readState(s.root)
	if errors.Is(err, fs.ErrNotExist) {
		for _, name := range []string{"postgres", "kafka", "postgres.log"} {
			if _, err := os.Lstat(filepath.Join(s.Dir, name)); err == nil {
				return fmt.Errorf("%s holds %s and no state.json: it is not a state directory of cryptoviz. Use "+
					"another one with --state DIR; if it was one, %s", s.Dir, name, mend)
			}
		}
		s.Data.Created = time.Now().UTC().Truncate(time.Second)
		return s.Save()
	}
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	if err := json.Unmarshal(text, &s.Data); err != nil {
		return fmt.Errorf("read %s: %w: it is damaged. Move the directory away, or, to keep its data, %s", s.file(),
			err, mend)
	}
	if s.Data.Mode == "" && s.Data.Created.IsZero() {
		return fmt.Errorf("%s is not of cryptoviz: use another directory with --state DIR", s.file())
	}
	return nil
}

// mend is how the data stays in use without its state.json; the private PostgreSQL gets a new password then.
const mend = `write {"mode": "live"} into state.json ("simulated" or "recorded" if the data is that)`

const stateFile = "state.json"

func (s *State) file() string { return filepath.Join(s.Dir, stateFile) }

// Update changes the data and saves it. Goroutines may call it side by side.
func (s *State) Update(change func(*StateData)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.Data)
	return s.save()
}

// Save writes state.json.
func (s *State) Save() error { return s.Update(func(*StateData) {}) }

// save writes state.json in one step: after a crash it holds the old text or the new one.
func (s *State) save() error {
	text, err := json.MarshalIndent(s.Data, "", "  ")
	if err != nil {
		return err
	}
	const fresh = stateFile + ".new"
	if err := s.root.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a save that was killed
		return fmt.Errorf("write the state: %w", err)
	}
	f, err := s.root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = s.root.Rename(fresh, stateFile)
	}
	if err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	return nil
}

// CheckMode tells whether the directory may hold data of a mode. It changes nothing.
func (s *State) CheckMode(mode string) error {
	if s.Data.Mode != "" && s.Data.Mode != mode {
		return &ModeError{s.Dir, s.Data.Mode, mode}
	}
	return nil
}

// SetMode makes the directory live, simulated or recorded, for good.
func (s *State) SetMode(mode string) error {
	if err := s.CheckMode(mode); err != nil {
		return err
	}
	s.Data.Mode = mode
	return s.Save()
}

// Clear deletes the data in the directory, and what is outside of it because the server's account cannot pass through.
// A server that still runs on it is stopped.
func (s *State) Clear() error {
	inside, outside := s.postgresDirs()
	for _, dir := range []string{inside, outside} {
		if left, _, err := adopt(filepath.Join(dir, "data"), ""); err == nil && left != nil {
			if err := left.Stop(context.Background()); err != nil {
				return fmt.Errorf("clear %s: %w", s.Dir, err)
			}
		}
	}
	for _, path := range []string{
		inside, outside, filepath.Join(s.Dir, "kafka"), filepath.Join(s.Dir, "postgres.log"),
		filepath.Join(s.Dir, "postgres.log.1"), filepath.Join(s.Dir, "postgres.log.2"),
	} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("clear %s: %w", s.Dir, err)
		}
	}
	return s.Update(func(d *StateData) { *d = StateData{Created: time.Now().UTC().Truncate(time.Second)} })
}

// system is where root keeps the data of state directories that the server's account cannot pass to.
const system = "/var/lib/cryptoviz"

func (s *State) postgresDirs() (inside, outside string) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.Dir))
	return filepath.Join(s.Dir, "postgres"), filepath.Join(system, strconv.FormatUint(h.Sum64(), 16))
}

// postgresDir is the folder of the private PostgreSQL. state.json only tells where it was: the directory may have been
// moved, or copied, and two must never use one database.
func (s *State) postgresDir() (string, error) {
	inside, outside := s.postgresDirs()
	for _, dir := range []string{inside, outside} {
		if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
			return dir, nil
		}
	}
	was := s.Data.PostgresDir
	if _, err := os.Stat(filepath.Join(was, "data")); was != "" && err == nil {
		return "", fmt.Errorf("%s was moved or copied here, and its database is in %s: bring it back to its old "+
			"place, or move the database to %s", s.Dir, was, outside)
	}
	if os.Geteuid() == 0 && !passable(s.Dir) {
		return outside, nil
	}
	return inside, nil
}

// Disks are the folders that hold the data.
func (s *State) Disks() []string {
	out := []string{s.Dir}
	if dir := s.Data.PostgresDir; dir != "" && filepath.Dir(dir) != s.Dir {
		out = append(out, dir)
	}
	return out
}

// Close gives the directory free.
func (s *State) Close() error { return errors.Join(s.lock.Close(), s.root.Close()) }

// FreeSpace returns the free and the total bytes of the file system that holds dir.
func FreeSpace(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("read free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
