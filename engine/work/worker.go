package work

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/clock"
	"github.com/cryptoviz/cryptoviz/engine/mapping"
	"github.com/cryptoviz/cryptoviz/engine/spec"
	"github.com/cryptoviz/cryptoviz/engine/store"
)

// Store is what a worker needs of the database.
type Store interface {
	Claim(ctx context.Context, l store.Log) (store.Claimed, error)
	Commit(ctx context.Context, t *store.Target, fence store.Fence, b *store.Batch) error
	Hint(ctx context.Context, source string, hints []store.Hint) error
}

// Options of a worker. The zero value works.
type Options struct {
	Clock     clock.Clock
	Log       *slog.Logger
	Group     string // prefix of the consumer group; default "cryptoviz."
	Instance  string // static member name, distinct for each running instance; "" joins as a dynamic member
	Stays     bool   // the static member's partitions wait for it over a stop, as long as Session; else others get them at once
	BatchRows int    // most records in one transaction; default 10,000
	Session   time.Duration
}

// Stats is a worker's state, for status and metrics.
type Stats struct {
	Rows, Batches, Dead, Fenced int64
	Hints                       int64            // what looks like a mistake of the definition, in the newest slots
	DeadBy                      map[string]int64 // of those in Dead, for each of store.DeadClasses
	Gaps, GapRecords            int64            // stretches of the topic that were gone before they could be stored, and their offsets
	Lag                         int64            // records in the topic that are not stored yet
	Blocked                     string
	Newest                      time.Time // of the newest sample that was stored; zero for none
	Partitions                  int
	Repeats                     int64 // records whose row was stored before
}

// Worker moves one source's records into its table.
type Worker struct {
	src     *spec.Source
	store   Store
	opts    []kgo.Opt
	opt     Options
	program *mapping.Program
	target  *store.Target
	log     *slog.Logger
	timed   bool // rows have a time, and it is checked

	rows, batches, fenced, gaps, gapRecords, repeats atomic.Int64
	dead                                             deadCount
	waits                                            waits
	underway                                         underway
	hints                                            hints
	newest                                           atomic.Int64 // time of the newest sample that was stored, in µs since the epoch; 0 for none

	mu       sync.Mutex
	parts    map[int32]*part
	instance string                  // static member name; "" for none
	rejoin   context.CancelCauseFunc // ends the session
}

// New prepares a worker; clients are the options that reach the brokers.
func New(src *spec.Source, st Store, clients []kgo.Opt, opt Options) (*Worker, error) {
	program, err := mapping.Compile(src)
	if err != nil {
		return nil, err
	}
	if opt.BatchRows == 0 {
		opt.BatchRows = 10_000
	}
	if opt.Group == "" {
		opt.Group = "cryptoviz."
	}
	if opt.Session == 0 {
		opt.Session = 12 * time.Second
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	h := src.Table.Hypertable
	w := &Worker{
		timed: h != nil && slices.Contains(program.Columns(), h.Time),
		src:   src, opts: clients, opt: opt, program: program, target: store.NewTarget(src.Topic.Name, src.Table, program.Columns()),
		log: opt.Log.With("source", src.Name), parts: map[int32]*part{}, instance: opt.Instance, waits: waits{why: map[int32]string{}},
	}
	w.store = watchedStore{st, &w.underway}
	return w, nil
}

// Source is the name of the worker's source.
func (w *Worker) Source() string { return w.src.Name }

// Rename makes the worker join its group again, under another static member name.
func (w *Worker) Rename(instance string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.instance = instance
	if w.rejoin != nil {
		w.rejoin(errRestart)
	}
}

// Stats returns the counters since the start.
func (w *Worker) Stats() Stats {
	s := Stats{
		Rows: w.rows.Load(), Batches: w.batches.Load(), DeadBy: w.dead.counts(), Fenced: w.fenced.Load(),
		Gaps: w.gaps.Load(), GapRecords: w.gapRecords.Load(), Repeats: w.repeats.Load(), Blocked: cmp.Or(w.waits.first(), w.underway.slowest()),
	}
	s.Hints = w.hints.now(w.opt.Clock.Now(), w.src.Interval)
	for _, n := range s.DeadBy {
		s.Dead += n
	}
	if at := w.newest.Load(); at != 0 {
		s.Newest = time.UnixMicro(at).UTC()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.parts {
		s.Partitions++
		s.Lag += max(0, p.high.Load()-p.next.Load())
	}
	return s
}

// Who waits, beside the partitions, which wait for the database under their own numbers; the one that knows most first.
const (
	claiming int32 = -1 - iota // partitions, in the database
	watching                   // whether the topic is there, and the same
	reading                    // the topic
)

// waits is why the worker waits: for each that does a reason. Who entered one takes it out, nobody else: that the broker
// answers one goroutine says nothing about what another one waits for.
type waits struct {
	mu       sync.Mutex
	why      map[int32]string
	stopping context.Context // of Run: what ends with it does not go on
}

// first is the reason to show, "" for none.
func (r *waits) first() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.why) == 0 {
		return ""
	}
	return r.why[slices.Max(slices.Collect(maps.Keys(r.why)))]
}

// wait notes why who waits; "" means that it goes on. It logs when the worker as a whole begins to wait and goes on.
func (w *Worker) wait(who int32, why string) {
	w.waits.mu.Lock()
	defer w.waits.mu.Unlock()
	waited := len(w.waits.why) > 0
	if why == "" {
		delete(w.waits.why, who)
	} else {
		w.waits.why[who] = why
	}
	switch now := len(w.waits.why) > 0; {
	case now && !waited:
		w.log.Warn("worker waits", "reason", why)
	case !now && waited && w.waits.stopping.Err() == nil:
		w.log.Info("worker goes on")
	}
}

var errRestart = errors.New("session ends")

// quiet is how long nothing may come from the topic before that counts as reading without an error.
const quiet = 5 * time.Second

// Run consumes until ctx ends. Whatever fails outside is waited for and tried again; nothing is dropped.
func (w *Worker) Run(ctx context.Context) error {
	w.waits.mu.Lock()
	w.waits.stopping = ctx
	w.waits.mu.Unlock()
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 200*time.Millisecond, 5*time.Second
	for ctx.Err() == nil {
		started := time.Now()
		err := w.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(started) > time.Minute {
			wait.Reset()
		}
		if err != nil && !errors.Is(err, errRestart) {
			w.wait(reading, err.Error())
		}
		timer := time.NewTimer(wait.NextBackOff())
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// session is one membership in the consumer group.
func (w *Worker) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{Worker: w, ctx: ctx, end: cancel, ready: make(chan struct{})}
	w.mu.Lock()
	w.rejoin = cancel
	instance := w.instance
	w.mu.Unlock()
	// Fetched bytes are compressed, ticker JSON ten to twenty times: small fetches bound the memory, and are as fast.
	opts := append(append([]kgo.Opt{}, w.opts...),
		kgo.ConsumerGroup(w.opt.Group+w.src.Name), kgo.ConsumeTopics(w.src.Topic.Name),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// What a producer gave up is no record. That of its transactions which is none either moves the position all the same.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(w.opt.Session), kgo.HeartbeatInterval(min(w.opt.Session/4, 3*time.Second)),
		kgo.MaxConcurrentFetches(2), kgo.FetchMaxBytes(1<<20), kgo.FetchMaxPartitionBytes(256<<10), kgo.MaxDecompressBatchBytes(32<<20),
		kgo.FetchMaxWait(time.Second), kgo.KeepRetryableFetchErrors(), kgo.MetadataMinAge(time.Second),
		kgo.AdjustFetchOffsetsFn(s.assign),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) {
			if len(added) == 0 {
				w.wait(claiming, "") // another instance has what could not be claimed here
			}
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { w.drop(gone[w.src.Topic.Name]) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { w.drop(gone[w.src.Topic.Name]) }),
	)
	if instance != "" {
		opts = append(opts, kgo.InstanceID(instance+"-"+w.src.Name))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("open a Kafka client: %w", err)
	}
	s.client = client
	close(s.ready)
	s.tasks.Go(func() { s.watch(ctx) })
	defer func() {
		cancel(nil)
		s.tasks.Wait()
		w.drop(slices.Collect(maps.Keys(w.owners())))
		s.leave(context.WithoutCancel(ctx), instance)
	}()
	for ctx.Err() == nil {
		poll, done := context.WithTimeout(ctx, quiet)
		fetches := client.PollFetches(poll)
		done()
		owners := w.owners() // of this moment: what was fetched for an owner of before must not reach the next one
		client.AllowRebalance()
		if fetches.IsClientClosed() {
			return errRestart
		}
		clean := true
		for _, e := range fetches.Errors() {
			if ctx.Err() != nil || errors.Is(e.Err, context.Canceled) || errors.Is(e.Err, context.DeadlineExceeded) {
				continue
			}
			clean = false
			if errors.Is(e.Err, kerr.UnknownTopicID) || errors.Is(e.Err, kerr.InconsistentTopicID) {
				return errRestart
			}
			w.wait(reading, fmt.Sprintf("read topic %s: %v", w.src.Topic.Name, e.Err))
			if !kerr.IsRetriable(e.Err) {
				return e.Err
			}
		}
		if clean {
			w.wait(reading, "")
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			if len(f.Records) == 0 {
				return
			}
			p := owners[f.Partition]
			if p == nil {
				return // revoked meanwhile; its next owner reads it again
			}
			p.high.Store(f.HighWatermark)
			s.hand(p, fetched{f.Records, f.LogStartOffset})
		})
	}
	return context.Cause(ctx)
}

// leave closes the client, and gives the partitions to the others at once unless they are to wait for this member.
func (s *session) leave(ctx context.Context, instance string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if instance == "" {
		_ = s.client.LeaveGroupContext(ctx)
	}
	member, _ := s.client.GroupMetadata()
	s.client.CloseAllowingRebalance()
	if instance == "" || s.opt.Stays || member == "" {
		return
	}
	// A client lets a static member stay, and would join again if it heard that it is out. The broker is told which of that
	// name it was: another one may have taken over.
	client, err := kgo.NewClient(s.opts...)
	if err != nil {
		return
	}
	defer client.Close()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = s.opt.Group + s.src.Name
	req.Members = []kmsg.LeaveGroupRequestMember{{MemberID: member, InstanceID: new(instance + "-" + s.src.Name)}}
	_, _ = req.RequestWith(ctx, client)
}

func (w *Worker) owners() map[int32]*part {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.parts)
}

type session struct {
	*Worker
	ctx     context.Context
	end     context.CancelCauseFunc
	client  *kgo.Client
	ready   chan struct{} // closed once client is set: the group may assign partitions before NewClient returns
	tasks   sync.WaitGroup
	topicID [16]byte
}

// assign claims each partition in the database and starts it at the database's position.
func (s *session) assign(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	topic := s.src.Topic.Name
	wanted := offsets[topic]
	if len(wanted) == 0 {
		return offsets, nil
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		return offsets, ctx.Err()
	}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		end := s.underway.begin("its partitions are not claimed in the database")
		err := s.claim(ctx, topic, wanted)
		end()
		if err != nil && ctx.Err() == nil {
			s.wait(claiming, err.Error())
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(45*time.Second))
	return offsets, err
}

func (s *session) claim(ctx context.Context, topic string, wanted map[int32]kgo.Offset) error {
	id, err := topicID(ctx, s.client, topic)
	if err != nil {
		return err
	}
	admin := kadm.NewClient(s.client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("list offsets of topic %s: %w", topic, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("list offsets of topic %s: %w", topic, err)
	}
	s.mu.Lock()
	s.topicID = id
	s.mu.Unlock()
	for n := range wanted {
		start, ok1 := starts.Lookup(topic, n)
		end, ok2 := ends.Lookup(topic, n)
		if !ok1 || !ok2 || start.Err != nil || end.Err != nil {
			return fmt.Errorf("list offsets of topic %s partition %d: %w", topic, n, errors.Join(start.Err, end.Err, errors.New("no answer")))
		}
		s.drop([]int32{n}) // an owner of before must be done before the epoch rises
		claimed, err := s.store.Claim(ctx, store.Log{Source: s.src.Name, Topic: topic, Partition: n, TopicID: id, Start: start.Offset, End: end.Offset})
		if err != nil {
			return err
		}
		if claimed.Gap != nil {
			s.lost(n, *claimed.Gap)
		}
		wanted[n] = kgo.NewOffset().At(claimed.Next).WithEpoch(-1)
		s.start(s, claimed, end.Offset)
		s.log.Debug("partition assigned", "partition", n, "next_offset", claimed.Next, "epoch", claimed.Fence.Epoch)
	}
	s.wait(claiming, "")
	return nil
}

// topicID asks the broker, not the client's cache.
func topicID(ctx context.Context, client *kgo.Client, topic string) (id [16]byte, err error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = new(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return id, fmt.Errorf("read topic %s: %w", topic, err)
	}
	if len(resp.Topics) != 1 {
		return id, fmt.Errorf("read topic %s: the broker answered for %d topics", topic, len(resp.Topics))
	}
	err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return id, fmt.Errorf("topic %s does not exist: run cryptoviz apply", topic)
	}
	if err != nil {
		return id, fmt.Errorf("read topic %s: %w", topic, err)
	}
	return resp.Topics[0].TopicID, nil
}

// watch looks every two seconds whether the topic is still the same one, and tells Kafka how far the database is.
func (s *session) watch(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for first := true; ; first = false {
		if !first {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		end := s.underway.begin("Kafka has not answered what topic " + s.src.Topic.Name + " is")
		id, err := topicID(ctx, s.client, s.src.Topic.Name)
		end()
		s.mu.Lock()
		same := s.topicID == [16]byte{} || s.topicID == id
		offsets, paused := map[int32]kgo.EpochOffset{}, false
		for n, p := range s.parts {
			paused = paused || p.paused.Load()
			if at := p.next.Load(); at > 0 {
				offsets[n] = kgo.EpochOffset{Epoch: -1, Offset: at}
			}
		}
		s.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.wait(watching, err.Error())
		case !same:
			s.log.Warn("topic was deleted and created again", "topic", s.src.Topic.Name)
			s.end(errRestart)
			return
		default:
			s.wait(watching, "")
		}
		s.hints.tell(ctx, s.src.Name, s.store)
		if paused {
			s.measure(ctx)
		}
		if len(offsets) > 0 {
			s.client.CommitOffsets(ctx, map[string]map[int32]kgo.EpochOffset{s.src.Topic.Name: offsets}, nil) // for lag tools; never read back
		}
	}
}

// drop stops partitions and waits for them.
func (w *Worker) drop(gone []int32) {
	w.mu.Lock()
	var stop []*part
	for _, n := range gone {
		if p := w.parts[n]; p != nil {
			stop = append(stop, p)
			delete(w.parts, n)
		}
	}
	w.mu.Unlock()
	for _, p := range stop {
		p.cancel()
	}
	for _, p := range stop {
		p.done.Wait()
		w.wait(p.fence.Partition, "")
	}
}
