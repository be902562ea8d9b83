package killtest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/load"
	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

const (
	perSlot    = 50   // records that are sent together
	maxSlots   = 5000 // slots of one engine process
	slotPause  = 20 * time.Millisecond
	session    = 3 * time.Second // of the consumer group, unless the settings say another
	childEnv   = "CRYPTOVIZ_KILLTEST_ENGINE"
	batchLimit = 500
)

// settings of an engine process.
type settings struct {
	Broker, DSN, Topic, Ledger string
	Lacks                      string // the protection that the committer lacks; "" is the engine's own
	Instance                   string // "": the one that the database gives
	Session                    time.Duration
	Number                     int // of the process: its records have times of their own
	Base                       time.Time
	Drain                      bool // read only
}

// TestMain is the engine when the test starts itself as one.
func TestMain(m *testing.M) {
	if text := os.Getenv(brokerEnv); text != "" {
		fmt.Fprintln(os.Stderr, "broker ends:", runBroker(text))
		os.Exit(1)
	}
	if text := os.Getenv(childEnv); text != "" {
		var s settings
		err := json.Unmarshal([]byte(text), &s)
		if err == nil {
			err = s.engine()
		}
		fmt.Fprintln(os.Stderr, "engine ends:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func source(topic string) (*spec.Source, error) {
	p, d := load.Load(os.DirFS("../.."), "pipeline.hcl", load.Options{})
	if d.HasErrors() {
		return nil, d.Diags
	}
	src := p.Sources[0]
	src.Topic.Name = topic
	return src, nil
}

// record makes record id: its time is its identity.
func (s *settings) record(id int) record.Record {
	at := s.Base.Add(time.Duration(id) * time.Millisecond).UnixMilli()
	return record.Record{Key: fmt.Sprint("M", id%17), Value: fmt.Appendf(nil, `{"symbol":"BTCUSDT","closeTime":%d,"lastPrice":"64123.10","bidPrice":"1","askPrice":"2","highPrice":"3","lowPrice":"1","volume":"9","quoteVolume":"9","priceChangePercent":"0.1","count":7}`, at)}
}

// engine runs a worker and a producer until it is killed.
func (s *settings) engine() error {
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("engine", s.Instance)
	src, err := source(s.Topic)
	if err != nil {
		return err
	}
	cfg, err := pgxpool.ParseConfig(s.DSN)
	if err != nil {
		return err
	}
	cfg.ConnConfig.ConnectTimeout = 3 * time.Second
	var st *store.Store
	for {
		if st, err = store.Open(ctx, cfg.Copy(), store.Options{Log: log}); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if s.Instance == "" {
		member, err := st.Join(ctx)
		if err != nil {
			return err
		}
		s.Instance = member.Name()
	}
	clients := []kgo.Opt{kgo.SeedBrokers(s.Broker), kgo.DialTimeout(2 * time.Second)}
	committer := consume.Store(st)
	if s.Lacks != "" {
		committer = naive{st, st.Pool(), s.Lacks}
	}
	w, err := consume.New(src, committer, clients, consume.Options{Log: log, Instance: s.Instance, Session: cmp.Or(s.Session, session), BatchRows: batchLimit, Group: "kill." + s.Topic + "."})
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	ledger, err := os.OpenFile(s.Ledger, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	producer := produce.New(clients, produce.Options{Log: log, Prefix: "kill." + s.Topic + "."})
	for n := 0; n < maxSlots && !s.Drain; n++ {
		slot := s.Number*maxSlots + n
		var records []record.Record
		for i := range perSlot {
			records = append(records, s.record(slot*perSlot+i))
		}
		// The intent before, the acknowledgement after. A slot without one may be in the topic or not; it is never sent again.
		if _, err := fmt.Fprintln(ledger, "I", slot); err != nil {
			return err
		}
		if err := producer.Send(ctx, src, time.Now(), records); err != nil {
			log.Warn("slot not acknowledged", "slot", slot, "reason", err)
		} else if _, err := fmt.Fprintln(ledger, "A", slot); err != nil {
			return err
		}
		time.Sleep(slotPause)
	}
	running.Wait()
	return nil
}
