// Package run wires the stages and runs them: the table of contents of the process.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/connect"
	"github.com/cryptoviz/cryptoviz/engine/consume"
	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/produce"
	"github.com/cryptoviz/cryptoviz/engine/rollup"
	"github.com/cryptoviz/cryptoviz/engine/schedule"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/status"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// Stages chooses what this process does.
type Stages struct{ Schedule, Work, Rollup bool }

// All is every stage.
var All = Stages{Schedule: true, Work: true, Rollup: true}

// Options of Open. The zero value runs live data with nothing but logs.
type Options struct {
	Clock    clock.Clock
	Log      *slog.Logger
	Mode     string // live (the default), simulated or recorded; the database must hold the same
	Owner    string // names this instance in the slot ledger
	Instance string // static member name in the consumer groups, kept over restarts; "" for one that the database gives
	Mark     bool   // mark a database that holds no mode yet with Mode
	Endpoint func(*spec.Source) string
	Disks    []string // folders whose file systems must not fill up
	Version  string   // goes into the User-Agent
}

// Engine is a pipeline that is ready to run.
type Engine struct {
	p        *spec.Pipeline
	opt      Options
	log      *slog.Logger
	store    *store.Store
	probes   *pgxpool.Pool // for looks at the database
	member   *store.Member // nil: none, as behind a connection pooler
	kafka    *kgo.Client
	admin    *kadm.Client
	workers  []*consume.Worker
	jobs     []func(context.Context) error
	tally    *tally
	free     atomic.Uint64
	rollsUp  bool // this process runs the rollups
	streams  []namedStream
	producer *produce.Producer // nil: this process fetches nothing
}

// Open connects to the database and the brokers, and prepares the stages. Nothing runs yet.
func Open(ctx context.Context, p *spec.Pipeline, stages Stages, opt Options) (*Engine, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Mode == "" {
		opt.Mode = "live"
	}
	e := &Engine{p: p, opt: opt, log: opt.Log, tally: newTally(p)}
	if err := e.open(ctx, stages); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

func (e *Engine) open(ctx context.Context, stages Stages) error {
	cfg, err := connect.Postgres(e.p.Database)
	if err != nil {
		return err
	}
	if e.store, err = store.Open(ctx, cfg, store.Options{
		Clock: e.opt.Clock, Log: e.log, Owner: e.opt.Owner,
		Ended: e.tally.ended,
	}); err != nil {
		return err
	}
	if e.probes, err = openProbes(ctx, e.store.Pool().Config()); err != nil {
		return err
	}
	if e.opt.Mark {
		if err := e.store.SetMode(ctx, e.opt.Mode); err != nil {
			return err
		}
	}
	if stages.Schedule || stages.Work {
		if err := e.checkMode(ctx); err != nil {
			return err
		}
		if err := e.join(ctx); err != nil {
			return err
		}
	}
	clients, err := connect.Kafka(e.p.Kafka)
	if err != nil {
		return err
	}
	if e.kafka, err = kgo.NewClient(clients...); err != nil {
		return fmt.Errorf("open a Kafka client: %w", err)
	}
	e.admin = kadm.NewClient(e.kafka)
	if stages.Work {
		if err := e.addWorkers(clients); err != nil {
			return err
		}
	}
	if stages.Schedule {
		if err := e.addSchedule(clients); err != nil {
			return err
		}
	}
	if stages.Rollup {
		e.rollsUp = true
		e.jobs = append(e.jobs, e.every(24*time.Hour, "old samples could not be forgotten", e.forgetSamples))
		for _, r := range e.p.Rollups {
			job, err := e.Rollup(r)
			if err != nil {
				return err
			}
			e.jobs = append(e.jobs, job.Run)
		}
	}
	if stages.Work || stages.Rollup {
		// of real time: there is as much to remove
		hour := time.Duration(float64(time.Hour) * max(1, e.opt.Clock.Speed()))
		e.jobs = append(e.jobs, e.every(time.Hour, "partitions could not be made ahead", e.keepPartitions),
			e.every(hour, "the engine's tables were not maintained", e.removeOld))
	}
	return nil
}

// checkMode keeps live, simulated and recorded rows in databases of their own.
func (e *Engine) checkMode(ctx context.Context) error {
	mode, err := store.Mode(ctx, e.store.Pool())
	if err == nil && mode != e.opt.Mode {
		err = fmt.Errorf("the database %s holds %s data and cannot take %s data: the two must never mix. Use "+
			"another database", connect.Redact(e.p.Database.URL), mode, e.opt.Mode)
	}
	return err
}

// addWorkers makes one worker a source.
func (e *Engine) addWorkers(clients []kgo.Opt) error {
	clients = append(slices.Clone(clients), kgo.WithHooks(&fenced{instance: e.instance, log: e.log}))
	for _, src := range e.p.Sources {
		if !src.Enabled {
			continue
		}
		w, err := consume.New(src, e.store, clients, consume.Options{
			Clock: e.opt.Clock, Log: e.log,
			Group: e.p.Kafka.GroupPrefix, Instance: e.instance(), Stays: e.opt.Instance != "",
		})
		if err != nil {
			return err
		}
		e.workers = append(e.workers, w)
		e.jobs = append(e.jobs, w.Run)
	}
	return nil
}

// Rollup prepares one rollup, for the schedule or for a day by hand.
func (e *Engine) Rollup(r *spec.Rollup) (*rollup.Runner, error) {
	return rollup.New(r, e.store.Pool(), newGate(e.p, r, e.store, e.admin), e.opt.Clock, e.log)
}

// addSchedule makes one job a source.
func (e *Engine) addSchedule(clients []kgo.Opt) error {
	var scheduler *schedule.Scheduler
	producer := produce.New(clients, produce.Options{
		Clock: e.opt.Clock, Log: e.log, Prefix: e.p.Kafka.GroupPrefix, Buffer: e.p.Kafka.Buffer,
		Found: func(source string, slot time.Time, records int) { // what was said to have failed did not
			scheduler.Enter(schedule.Outcome{
				Slot: schedule.Slot{Source: source, At: slot}, Kind: schedule.Late,
				Records: records,
			})
		},
	})
	e.producer = producer
	opt := fetch.Options{Clock: e.opt.Clock, Log: e.log, Endpoint: e.opt.Endpoint, UserAgent: "cryptoviz/" +
		strings.TrimPrefix(e.opt.Version, "v"), Budgets: fetch.NewBudgets(e.store, e.log)}
	var jobs []schedule.Job
	for _, src := range e.p.Sources {
		if !src.Enabled {
			continue
		}
		job := schedule.Job{
			Source: src.Name, Interval: src.Interval, Offset: src.Offset, Jitter: src.Jitter,
			Fenced: func() bool {
				return producer.Fenced(src.Name)
			},
		}
		var err error
		if src.Definition.Stream != nil {
			job.Run, err = e.stream(src, producer, opt)
		} else {
			job.Overtime = src.Definition.Poll.Timeout
			job.Run, err = e.poll(src, producer, opt)
		}
		if err != nil {
			return err
		}
		run := job.Run
		job.Run = func(ctx context.Context, slot schedule.Slot) schedule.Outcome {
			started := e.opt.Clock.Now()
			out := run(ctx, slot)
			took := e.opt.Clock.Now().Sub(started)
			return whenDone(out, func(out schedule.Outcome) schedule.Outcome {
				out.Took = took
				e.tally.ran(out)
				return out
			})
		}
		jobs = append(jobs, job)
	}
	scheduler = schedule.New(jobs, store.Ledger{Store: e.store}, e.opt.Clock, e.log)
	e.jobs = append(e.jobs, scheduler.Run, func(ctx context.Context) error {
		<-ctx.Done()
		closeProducer(producer)
		return nil
	})
	if len(e.opt.Disks) > 0 {
		e.jobs = append(e.jobs, func(ctx context.Context) error { return e.watchDisk(ctx, producer) })
	}
	return nil
}

// poll fetches a slot's records and puts them on the topic.
func (e *Engine) poll(src *spec.Source, producer *produce.Producer, opt fetch.Options) (func(context.Context,
	schedule.Slot) schedule.Outcome, error,
) {
	source, err := fetch.NewPoll(src, opt)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, slot schedule.Slot) schedule.Outcome {
		if reason := producer.Paused(); reason != "" {
			return schedule.Outcome{Slot: slot, Kind: schedule.Skipped, Reason: reason}
		}
		end, _ := ctx.Deadline() // of the slot and its overtime; a claim that came late leaves time for one attempt
		until := end.Add(-src.Definition.Poll.Timeout)
		if soon := time.Now().Add(time.Second); until.Before(soon) {
			until = soon
		}
		records, err := source.FetchUntil(ctx, until)
		switch {
		case errors.Is(err, fetch.ErrNotModified):
			return schedule.Outcome{Slot: slot, Kind: schedule.NotModified}
		case err != nil:
			kind := schedule.Failed
			if e, ok := errors.AsType[*fetch.Error](err); ok && e.NotTried {
				kind = schedule.Skipped
			}
			return schedule.Outcome{Slot: slot, Kind: kind, Reason: err.Error()}
		}
		to := &slotTopic{producer: producer}
		if err := to.Send(ctx, src, slot.At, records); err != nil {
			return schedule.Outcome{Slot: slot, Kind: schedule.Failed, Reason: err.Error()}
		}
		accept := source.Accept()
		return whenDone(to.outcome(schedule.Outcome{Slot: slot, Kind: schedule.OK, Reason: source.Said()}),
			func(out schedule.Outcome) schedule.Outcome {
				if out.Records > 0 {
					accept()
				}
				return out
			})
	}, nil
}

// Run runs every stage until ctx ends. It is called once.
func (e *Engine) Run(ctx context.Context) error {
	if e.member != nil {
		e.member.Keep(e.renamed)
	}
	group, within := errgroup.WithContext(ctx)
	for _, job := range e.jobs {
		group.Go(func() error { return job(within) })
	}
	if err := group.Wait(); ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err // also a stage that stopped because something of its own was canceled
	}
	return nil
}

// Close ends the connections.
func (e *Engine) Close() {
	if e.kafka != nil {
		e.kafka.Close()
	}
	if e.member != nil {
		e.member.Leave()
	}
	if e.probes != nil {
		e.probes.Close()
	}
	if e.store != nil {
		e.store.Close()
	}
}

// Status looks at the pipeline once.
func (e *Engine) Status(ctx context.Context) (status.Status, error) {
	return status.Read(ctx, e.p, e.store.Pool(), e.admin, e.opt.Clock.Now())
}
