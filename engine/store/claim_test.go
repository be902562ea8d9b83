package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/store"
)

func TestClaimSaysWhereToGoOn(t *testing.T) {
	t.Parallel()
	other := [16]byte{9}
	for _, c := range []struct {
		name       string
		id         [16]byte
		start, end int64
		next       int64
		gap        string
	}{
		{"as it was left", topicID, 0, 50, 10, ""},
		{"read to the end", topicID, 0, 10, 10, ""},
		{"retention went past", topicID, 25, 50, 25, "10 25 the topic's retention removed records before they were stored"},
		{"the broker lost records", topicID, 0, 7, 7, "10 7 the topic is shorter than what was read of it: the broker lost records"},
		{"a new topic of the name", other, 0, 50, 0, "10 0 the topic was deleted and created again"},
		{"a new topic, its start gone", other, 4, 50, 4, "10 4 the topic was deleted and created again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, store.Options{})
			b.commit(b.claim(0, 10), b.batch(0, many(10, time.Now())...))
			claimed, err := b.Claim(t.Context(), store.Log{Source: "binance", Topic: "binance", TopicID: c.id, Start: c.start, End: c.end})
			if err != nil {
				t.Fatal(err)
			}
			if claimed.Next != c.next || claimed.Fence.Epoch != 2 || claimed.Pending != (c.gap != "") || (claimed.Gap != nil) != (c.gap != "") {
				t.Errorf("%+v", claimed)
			}
			b.has(map[string]string{"SELECT from_offset || ' ' || to_offset || ' ' || reason FROM cryptoviz.gap": c.gap})
			b.commit(claimed.Fence, b.batch(claimed.Next, many(1, time.Now().Add(time.Second))...))
		})
	}
}

func TestClaimBeginsAtTheStartOfTheLog(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	claimed, err := b.Claim(t.Context(), store.Log{Source: "binance", Topic: "binance", TopicID: topicID, Start: 3, End: 9})
	if err != nil || claimed.Next != 3 {
		t.Errorf("%+v: %v", claimed, err)
	}
}

// TestClaimCutsOffAnOwnerThatStandsStill: a paused process keeps its transaction, and with it the position's lock, open.
func TestClaimCutsOffAnOwnerThatStandsStill(t *testing.T) {
	t.Parallel()
	b := newBench(t, store.Options{})
	old := b.claim(0, 10)
	conn, err := b.open(store.Options{}).Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{"BEGIN", "UPDATE cryptoviz.position SET next_offset = 10", "INSERT INTO raw_crypto_data (time, source, base, quote, price) VALUES (now(), 'binance', 'BTC', 'USDT', 1)"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	fence := b.claim(0, 10) // or it waits for ever
	if _, err := conn.Exec(t.Context(), "COMMIT"); err == nil {
		t.Error("the old owner still committed")
	}
	if err := b.Commit(t.Context(), b.target, old, b.batch(0, many(5, time.Now())...)); !errors.Is(err, store.ErrFenced) {
		t.Error(err)
	}
	b.has(map[string]string{rows: "0", position: "0"})
	b.commit(fence, b.batch(0, many(5, time.Now())...))
	b.has(map[string]string{rows: "5", position: "5"})
}
