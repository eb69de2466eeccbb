package natsjs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// stored are the ids in a stream, in its order.
func stored(t testing.TB, c natsjs.Config) []string {
	t.Helper()
	s, err := jetStream(t, c.URL).Stream(t.Context(), c.Stream)
	if err != nil {
		t.Fatal(err)
	}
	state := s.CachedInfo().State
	var ids []string
	for seq := max(state.FirstSeq, 1); seq <= state.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.Header.Get("Nats-Msg-Id"))
	}
	return ids
}

func keyed(n, keys int) []events.Raw {
	all := make([]events.Raw, n)
	for i := range all {
		key := fmt.Sprint("key ", i%keys)
		all[i] = events.Raw{ID: strconv.Itoa(i), Type: "keyed", Partition: events.Partition(key), Header: map[string]string{"ce-partitionkey": key}}
	}
	return all
}

// inOrder reports the first id that comes after a later one of its key.
func inOrder(ids []string, keys int) string {
	last := make(map[int]int)
	for _, id := range ids {
		n, _ := strconv.Atoi(id)
		if before, ok := last[n%keys]; ok && n < before {
			return fmt.Sprintf("%d after %d", n, before)
		}
		last[n%keys] = n
	}
	return ""
}

// Of a key, what comes after the first that is not stored is not stored.
func stopsAtFailure(t *testing.T, raws []events.Raw, errs []error, ids []string, keys int) {
	t.Helper()
	failed := make(map[int]bool)
	for i := range raws {
		switch key := i % keys; {
		case errs[i] != nil:
			failed[key] = true
		case failed[key]:
			t.Errorf("%s is stored, and an earlier one of its key is not", raws[i].ID)
		case !slices.Contains(ids, raws[i].ID):
			t.Errorf("%s is acknowledged and not stored", raws[i].ID)
		}
	}
	if wrong := inOrder(ids, keys); wrong != "" {
		t.Error(wrong)
	}
}

func TestKeysStopAtTheFirstFailure(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	for i, atomic := range []bool{false, true} {
		c := share(config(set), i)
		c.AtomicBatches = atomic
		d := open(t, c)
		all := keyed(60, 7)
		all[20].Body = make([]byte, 2<<20) // of key 6
		all[30].Type = "not a type"        // of key 2
		errs := d.Publish(t.Context(), all)
		stopsAtFailure(t, all, errs, stored(t, c), 7)
		for i, err := range errs {
			own := i == 20 || i == 30
			behind := i > 20 && i%7 == 6 || i > 30 && i%7 == 2
			if own && !errors.Is(err, events.ErrRejected) || behind && !errors.Is(err, events.ErrUnavailable) || !own && !behind && err != nil {
				t.Errorf("atomic %v: message %d: %v", atomic, i, err)
			}
		}
	}
}

// A stream that is full for a moment, and has room again while a batch is under way.
func TestKeysStopWhereTheStreamWasFull(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	c.MaxMessages = 50
	d := open(t, c)
	s, err := jetStream(t, c.URL).Stream(t.Context(), c.Stream)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 20 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(time.Duration(round) * 200 * time.Microsecond)
			_ = s.Purge(context.WithoutCancel(t.Context()))
		}()
		all := keyed(200, 3)
		for i := range all {
			all[i].ID = strconv.Itoa(round*1000*3 + i)
		}
		errs := d.Publish(t.Context(), all)
		<-done
		failed := make(map[int]bool)
		for i := range all {
			if errs[i] != nil {
				failed[i%3] = true
			} else if failed[i%3] {
				t.Fatalf("round %d: %d is stored, and an earlier one of its key is not", round, i)
			}
		}
		if err := s.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// The connection is lost and made anew while batches are under way.
func TestKeysStayInOrderThroughLostConnections(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	direct := c
	var p *faultproxy.Proxy
	c.URL, p = stacktest.Proxied(t, c.URL)
	d := open(t, c)

	stop := make(chan struct{})
	var breaking sync.WaitGroup
	breaking.Go(func() {
		for i := range 60 { // on a busy machine little gets done between two of them
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(100+i%7*20) * time.Millisecond):
				_ = p.Add("reset", faultproxy.Fault{Kind: faultproxy.Reset})
				_ = p.Remove("reset")
			}
		}
	})
	all := keyed(3000, 5)
	left := all
	failures := 0
	for limit := time.Now().Add(time.Minute); len(left) > 0; {
		if time.Now().After(limit) {
			t.Fatalf("%d are left", len(left))
		}
		batch := left[:min(500, len(left))]
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		errs := d.Publish(ctx, batch)
		cancel()
		var again []events.Raw
		for i, err := range errs {
			if err != nil {
				failures++
				again = append(again, batch[i])
			}
		}
		if left = append(again, left[len(batch):]...); len(again) > 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	close(stop)
	breaking.Wait()
	if failures == 0 {
		t.Error("nothing failed: this test could not")
	}
	ids := stored(t, direct)
	if len(ids) != len(all) {
		t.Errorf("%d are stored, of %d", len(ids), len(all))
	}
	if wrong := inOrder(ids, 5); wrong != "" {
		t.Error(wrong)
	}
	t.Logf("%d failures", failures)
}

// A batch that the server refuses whole, for one duplicate, is sent message by message.
func TestAtomicBatches(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	c.AtomicBatches = true
	d := open(t, c)
	all := make([]events.Raw, 2500) // more than one batch may have
	for i := range all {
		all[i] = raw(strconv.Itoa(i), "a")
	}
	publish(t, d, all[1700])
	publish(t, d, all...)
	ids := stored(t, c)
	if len(ids) != len(all) {
		t.Errorf("%d are stored, of %d", len(ids), len(all))
	}
	got, _ := begin(t, d, events.Subscription{Name: "g", Filters: []events.Filter{{Type: "a", Partition: -1}}, MaxInFlight: 1000, Prefetch: 200, AckWait: 30 * time.Second})
	for range len(all) {
		select {
		case <-got:
		case <-time.After(10 * time.Second):
			t.Fatal("not all come")
		}
	}
}
