package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
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
	root, err := openFolderOfOurs(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	f, err := root.OpenFile("lock", os.O_RDWR|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
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
	state, err := readState(root)
	if err == nil {
		err = json.Unmarshal(state, &out.Data)
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of cryptoviz up in %s: %w", dir, err)
	}
	return out, nil
}

// URL reaches the private PostgreSQL of a state as the owner of its database.
func (d StateData) URL() string { return d.url(owner, d.Password) }

// ReaderURL reaches it as a role that may read what the owner made, and nothing else. A state of an older version has
// none: it is the owner then.
func (d StateData) ReaderURL() string {
	if d.ReaderPassword == "" {
		return d.URL()
	}
	return d.url(reader, d.ReaderPassword)
}

// SuperuserURL reaches it as its superuser; "" for a state of an older version.
func (d StateData) SuperuserURL() string {
	if d.SuperuserPassword == "" {
		return ""
	}
	return d.url(superuser, d.SuperuserPassword)
}

func (d StateData) url(user, password string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: d.postgresAddress(), Path: "/" +
		database, RawQuery: "sslmode=disable"}
	return u.String()
}

func (d StateData) postgresAddress() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.PostgresPort))
}

// Point makes a pipeline use the services of this state: one broker, no TLS, the passwords of state.json. Grafana is
// the file's own; its data sources read this PostgreSQL, as the role that only reads.
func (d StateData) Point(p *spec.Pipeline) {
	p.Kafka = spec.Kafka{
		Brokers:     []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(d.KafkaPort))},
		GroupPrefix: p.Kafka.GroupPrefix, Range: p.Kafka.Range,
	}
	if d.KafkaPassword != "" { // an older version asks for none
		p.Kafka.SASLMechanism, p.Kafka.SASLUser, p.Kafka.SASLPassword = strings.ToLower(kafkaMechanism), kafkaUser,
			spec.NewSecret(d.KafkaPassword)
	}
	p.Database = spec.Database{URL: spec.NewSecret(d.URL()), OnMissing: "degrade", Range: p.Database.Range}
	for _, s := range p.DataSources {
		s.Host, s.Database, s.SSLMode = d.postgresAddress(), database, "disable"
		s.User, s.Password = reader, spec.NewSecret(d.ReaderPassword)
	}
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
