package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptoviz/cryptoviz/engine/spec"
)

// Running is an `up` that works in a state directory at this moment, in another process.
type Running struct {
	PID  int
	Data StateData
}

// FindRunning looks who holds a state directory. It changes nothing; nil means nobody.
func FindRunning(dir string) (*Running, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return nil, nil
	}
	out := &Running{PID: holder(f)}
	state, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err == nil {
		err = json.Unmarshal(state, &out.Data)
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of cryptoviz up in %s: %w", dir, err)
	}
	return out, nil
}

// URL reaches the private PostgreSQL of a state.
func (d StateData) URL() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("cryptoviz", d.Password), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(d.PostgresPort)), Path: "/cryptoviz", RawQuery: "sslmode=disable"}
	return u.String()
}

// Point makes a pipeline use the services of this state.
func (r *Running) Point(p *spec.Pipeline) {
	Point(p, r.Data.URL(), net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Data.KafkaPort)))
}

// Point makes a pipeline use services of this machine: one broker, no TLS, no passwords but the database's own. Grafana is left
// out: the file says how it sees another database.
func Point(p *spec.Pipeline, databaseURL string, brokers ...string) {
	p.Kafka = spec.Kafka{Brokers: brokers, GroupPrefix: p.Kafka.GroupPrefix, Range: p.Kafka.Range}
	p.Database = spec.Database{URL: spec.NewSecret(databaseURL), OnMissing: "degrade", Range: p.Database.Range}
	p.Grafana = nil
	for _, t := range p.Topics {
		t.Replication = 1
	}
}

// Now is the newest engine time that a state knows: of a sped-up clock, or the machine's.
func (d StateData) Now() time.Time {
	if !d.Virtual.IsZero() {
		return d.Virtual
	}
	return time.Now().UTC()
}
