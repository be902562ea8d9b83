package consume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cryptoviz/cryptoviz/engine/store"
)

// session is one membership in the consumer group.
func (w *Worker) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{w: w, ctx: ctx, end: cancel, ready: make(chan struct{})}
	w.mu.Lock()
	w.rejoin = cancel
	instance := w.instance
	w.mu.Unlock()
	// Fetched bytes are compressed, ticker JSON ten to twenty times: small fetches bound the memory, and are as fast.
	opts := append(append([]kgo.Opt{}, w.opts...),
		kgo.ConsumerGroup(w.opt.Group+w.src.Name), kgo.ConsumeTopics(w.src.Topic.Name),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// What a producer gave up is no record. That of its transactions which is none either moves the position all
		// the same.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.SessionTimeout(w.opt.Session),
		kgo.HeartbeatInterval(min(w.opt.Session/4, 3*time.Second)),
		kgo.MaxConcurrentFetches(2), kgo.FetchMaxBytes(1<<20), kgo.FetchMaxPartitionBytes(256<<10),
		kgo.MaxDecompressBatchBytes(32<<20),
		kgo.FetchMaxWait(time.Second), kgo.KeepRetryableFetchErrors(), kgo.MetadataMinAge(time.Second),
		kgo.AdjustFetchOffsetsFn(s.assign),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) {
			if len(added) == 0 {
				w.setBlocker(claiming, "") // another instance has what could not be claimed here
			}
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			w.drop(gone[w.src.Topic.Name])
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			w.drop(gone[w.src.Topic.Name])
		}),
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
		poll, done := context.WithTimeout(ctx, idlePoll)
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
			w.setBlocker(reading, fmt.Sprintf("read topic %s: %v", w.src.Topic.Name, e.Err))
			if !kerr.IsRetriable(e.Err) {
				return e.Err
			}
		}
		if clean {
			w.setBlocker(reading, "")
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
	if instance == "" || s.w.opt.Stays || member == "" {
		return
	}
	// A client lets a static member stay, and would join again if it heard that it is out. The broker is told which of
	// that name it was: another one may have taken over.
	client, err := kgo.NewClient(s.w.opts...)
	if err != nil {
		return
	}
	defer client.Close()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = s.w.opt.Group + s.w.src.Name
	req.Members = []kmsg.LeaveGroupRequestMember{{MemberID: member, InstanceID: new(instance + "-" + s.w.src.Name)}}
	_, _ = req.RequestWith(ctx, client)
}

func (w *Worker) owners() map[int32]*partitionConsumer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.partitions)
}

type session struct {
	w       *Worker
	ctx     context.Context
	end     context.CancelCauseFunc
	client  *kgo.Client
	ready   chan struct{} // closed once client is set: the group may assign partitions before NewClient returns
	tasks   sync.WaitGroup
	topicID [16]byte
}

// assign claims each partition in the database and starts it at the database's position.
func (s *session) assign(
	ctx context.Context, offsets map[string]map[int32]kgo.Offset,
) (map[string]map[int32]kgo.Offset, error) {
	topic := s.w.src.Topic.Name
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
		end := s.w.underway.begin("its partitions are not claimed in the database")
		err := s.claim(ctx, topic, wanted)
		end()
		if err != nil && ctx.Err() == nil {
			s.w.setBlocker(claiming, err.Error())
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
	s.w.mu.Lock()
	s.topicID = id
	s.w.mu.Unlock()
	for n := range wanted {
		start, ok1 := starts.Lookup(topic, n)
		end, ok2 := ends.Lookup(topic, n)
		if !ok1 || !ok2 || start.Err != nil || end.Err != nil {
			return fmt.Errorf("list offsets of topic %s partition %d: %w", topic, n, errors.Join(start.Err, end.Err,
				errors.New("no answer")))
		}
		s.w.drop([]int32{n}) // an owner of before must be done before the epoch rises
		claimed, err := s.w.store.Claim(ctx, store.Log{
			Source: s.w.src.Name, Topic: topic, Partition: n, TopicID: id,
			Start: start.Offset, End: end.Offset,
		})
		if err != nil {
			return err
		}
		if claimed.Gap != nil {
			s.w.lost(n, *claimed.Gap)
		}
		wanted[n] = kgo.NewOffset().At(claimed.Next).WithEpoch(-1)
		s.w.start(s, claimed, end.Offset)
		s.w.log.Debug("partition assigned", "partition", n, "next_offset", claimed.Next, "epoch", claimed.Fence.Epoch)
	}
	s.w.setBlocker(claiming, "")
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
		end := s.w.underway.begin("Kafka has not answered what topic " + s.w.src.Topic.Name + " is")
		id, err := topicID(ctx, s.client, s.w.src.Topic.Name)
		end()
		s.w.mu.Lock()
		same := s.topicID == [16]byte{} || s.topicID == id
		offsets, paused := map[int32]kgo.EpochOffset{}, false
		for n, p := range s.w.partitions {
			paused = paused || p.paused.Load()
			if at := p.next.Load(); at > 0 {
				offsets[n] = kgo.EpochOffset{Epoch: -1, Offset: at}
			}
		}
		s.w.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.w.setBlocker(watching, err.Error())
		case !same:
			s.w.log.Warn("topic was deleted and created again", "topic", s.w.src.Topic.Name)
			s.end(errRestart)
			return
		default:
			s.w.setBlocker(watching, "")
		}
		s.w.hints.tell(ctx, s.w.src.Name, s.w.store)
		if paused {
			s.measure(ctx)
		}
		if len(offsets) > 0 {
			// for lag tools; never read back
			s.client.CommitOffsets(ctx, map[string]map[int32]kgo.EpochOffset{s.w.src.Topic.Name: offsets}, nil)
		}
	}
}

// drop stops partitions and waits for them.
func (w *Worker) drop(gone []int32) {
	w.mu.Lock()
	var stop []*partitionConsumer
	for _, n := range gone {
		if p := w.partitions[n]; p != nil {
			stop = append(stop, p)
			delete(w.partitions, n)
		}
	}
	w.mu.Unlock()
	for _, p := range stop {
		p.cancel()
	}
	for _, p := range stop {
		p.done.Wait()
		w.setBlocker(p.fence.Partition, "")
	}
}
