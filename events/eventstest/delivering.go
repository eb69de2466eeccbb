package eventstest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

func testEarlier(t *testing.T, b Broker) {
	publish(t, b.Driver, raws("earlier", 5)...)
	var got tally
	begin(t, b.Driver, subscription("late", 10, filter("earlier")), func(d events.Delivery) {
		got.add(d.Raw().ID)
		_ = d.Ack(context.Background())
	})
	until(t, "what was published before", func() bool { return got.different() == 5 })
}

func testCrash(t *testing.T, b Broker) {
	s := subscription("crash", 10, filter("crash"))
	first, crash := connect(t, b)
	publish(t, b.Driver, raws("crash", 1)...)
	got := make(chan int, 10)
	begin(t, first, s, func(d events.Delivery) { got <- d.Attempt() }) // settles nothing
	if n := <-got; n != 1 {
		t.Fatalf("the first delivery is number %d", n)
	}
	crash()
	stop := begin(t, b.Driver, s, func(d events.Delivery) { got <- d.Attempt() }) // likewise, and ends in order
	if n := <-got; n != 2 {
		t.Errorf("the second delivery is number %d", n)
	}
	stop()
	begin(t, b.Driver, s, func(d events.Delivery) {
		got <- d.Attempt()
		_ = d.Ack(context.Background())
	})
	if n := <-got; n != 3 {
		t.Errorf("the third delivery is number %d", n)
	}
	// On a slow machine another may have been sent before the broker knew that it is settled, but not
	// again and again.
	for range 3 {
		time.Sleep(1200 * time.Millisecond)
		if len(got) == 0 {
			return
		}
		for len(got) > 0 {
			<-got
		}
	}
	t.Error("it is delivered after it was settled")
}

func testHandBack(t *testing.T, b Broker) {
	s := subscription("handback", 10, filter("handback"))
	s.AckWait = patience // so that waiting for it shows
	publish(t, b.Driver, raws("handback", 8)...)
	first, _ := connect(t, b)
	began := make(chan struct{}, 1)
	release := make(chan struct{})
	stop := begin(t, first, s, func(d events.Delivery) {
		began <- struct{}{}
		<-release
		_ = d.Ack(context.Background())
	})
	<-began
	time.Sleep(100 * time.Millisecond) // for the rest to be on its way
	ended := make(chan struct{})
	go func() { stop(); close(ended) }()
	time.Sleep(50 * time.Millisecond)
	close(release)
	<-ended
	var got tally
	at := time.Now()
	begin(t, b.Driver, s, func(d events.Delivery) {
		got.add(d.Raw().ID)
		_ = d.Ack(context.Background())
	})
	until(t, "the seven that were not begun", func() bool { return got.different() == 7 })
	if took := time.Since(at); took > 10*time.Second {
		t.Errorf("they came after %v", took)
	}
}

func testExtend(t *testing.T, b Broker) {
	publish(t, b.Driver, raws("extend", 1)...)
	var deliveries atomic.Int64
	done := make(chan struct{})
	s := subscription("extend", 10, filter("extend"))
	deliver := func(d events.Delivery) {
		deliveries.Add(1)
		go func() {
			defer close(done)
			for range 9 { // 2.25 s, of which 1 s would be allowed
				time.Sleep(250 * time.Millisecond)
				if err := d.Extend(context.Background()); err != nil {
					t.Error(err)
				}
			}
			_ = d.Ack(context.Background())
		}()
	}
	begin(t, b.Driver, s, deliver)
	<-done
	never(t, "a second delivery", 1200*time.Millisecond, func() bool { return deliveries.Load() != 1 })
}

func testHeld(t *testing.T, b Broker) {
	publish(t, b.Driver, raws("held", 8)...)
	s := subscription("held", 10, filter("held"))
	s.AckWait = 2 * time.Second
	var deliveries, again atomic.Int64
	begin(t, b.Driver, s, func(d events.Delivery) {
		if d.Attempt() > 1 {
			again.Add(1)
		}
		if deliveries.Add(1) == 1 {
			for range 20 { // 5 s, of which 2 s would be allowed
				time.Sleep(250 * time.Millisecond)
				if err := d.Extend(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
		_ = d.Ack(context.Background())
	})
	until(t, "all eight", func() bool { return deliveries.Load() >= 8 })
	never(t, "a second delivery", 2200*time.Millisecond, func() bool { return deliveries.Load() != 8 || again.Load() != 0 })
}

func testNoExtend(t *testing.T, b Broker) {
	publish(t, b.Driver, raws("slow", 1)...)
	var effects tally
	attempts := make(chan int, 10)
	s := subscription("slow", 10, filter("slow"))
	begin(t, b.Driver, s, func(d events.Delivery) {
		attempts <- d.Attempt()
		go func() {
			if d.Attempt() == 1 {
				time.Sleep(1800 * time.Millisecond)
			}
			effects.add(d.Raw().ID)
			_ = d.Ack(context.Background())
		}()
	})
	if first, second := <-attempts, <-attempts; first != 1 || second != 2 {
		t.Errorf("deliveries were numbers %d and %d", first, second)
	}
	until(t, "both handlers' ends", func() bool { return effects.of("slow-0") == 2 })
	if effects.different() != 1 {
		t.Error("it is not the same message")
	}
}

func testRetryAfter(t *testing.T, b Broker) {
	const after = 1500 * time.Millisecond
	publish(t, b.Driver, raws("again", 2)...)
	var mu sync.Mutex
	at := make(map[string][]time.Time)
	begin(t, b.Driver, subscription("again", 10, filter("again")), func(d events.Delivery) {
		mu.Lock()
		at[d.Raw().ID] = append(at[d.Raw().ID], time.Now())
		mu.Unlock()
		wait := after
		if d.Raw().ID == "again-1" {
			wait = 0
		}
		if d.Attempt() == 1 {
			if err := d.Retry(context.Background(), wait); err != nil {
				t.Error(err)
			}
			return
		}
		_ = d.Ack(context.Background())
	})
	until(t, "both again", func() bool { mu.Lock(); defer mu.Unlock(); return len(at["again-0"]) == 2 && len(at["again-1"]) == 2 })
	if waited := at["again-0"][1].Sub(at["again-0"][0]); waited < after-20*time.Millisecond || waited > after+2*time.Second {
		t.Errorf("asked for it after %v, it came after %v", after, waited)
	}
	if waited := at["again-1"][1].Sub(at["again-1"][0]); waited > time.Second {
		t.Errorf("asked for it at once, it came after %v", waited)
	}
}

func testExtendAfterRetry(t *testing.T, b Broker) {
	publish(t, b.Driver, raws("settled", 1)...)
	s := subscription("settled", 10, filter("settled"))
	s.AckWait = patience
	got := make(chan time.Time, 2)
	begin(t, b.Driver, s, func(d events.Delivery) {
		got <- time.Now()
		if d.Attempt() > 1 {
			_ = d.Ack(context.Background())
			return
		}
		_ = d.Retry(context.Background(), 200*time.Millisecond)
		if err := d.Extend(context.Background()); err != nil {
			t.Error(err)
		}
	})
	first := <-got
	if waited := (<-got).Sub(first); waited > 5*time.Second {
		t.Errorf("it came after %v: the extension had put it off", waited)
	}
}

func testGroups(t *testing.T, b Broker) {
	const n = 200
	var a, c tally
	var member [2]tally
	s := subscription("group-a", 100, filter("groups"))
	s.AckWait = patience
	for i := range member {
		d, _ := connect(t, b)
		begin(t, d, s, func(d events.Delivery) {
			time.Sleep(time.Millisecond) // so that one does not take all
			member[i].add(d.Raw().ID)
			a.add(d.Raw().ID)
			_ = d.Ack(context.Background())
		})
	}
	s.Name = "group-b"
	begin(t, b.Driver, s, func(d events.Delivery) {
		c.add(d.Raw().ID)
		_ = d.Ack(context.Background())
	})
	publish(t, b.Driver, raws("groups", n)...)
	until(t, "all, in both groups", func() bool { return a.different() == n && c.different() == n })
	if a.all() != n || c.all() != n {
		t.Errorf("%d and %d deliveries of %d", a.all(), c.all(), n)
	}
	if member[0].all() == 0 || member[1].all() == 0 {
		t.Errorf("members have got %d and %d", member[0].all(), member[1].all())
	}
}

func testMembers(t *testing.T, b Broker) {
	const rounds, size = 12, 100
	var got tally
	s := subscription("members", 200, filter("members"))
	deliver := func(d events.Delivery) {
		time.Sleep(200 * time.Microsecond)
		got.add(d.Raw().ID)
		_ = d.Ack(context.Background())
	}
	begin(t, b.Driver, s, deliver)
	all := raws("members", rounds*size)
	for i := range rounds {
		d, crash := connect(t, b)
		stop := begin(t, d, s, deliver)
		publish(t, b.Driver, all[i*size:(i+1)*size]...)
		if i%3 == 2 {
			crash()
		} else {
			stop()
		}
	}
	until(t, "every message", func() bool { return got.different() == rounds*size })
}

func testLag(t *testing.T, b Broker) {
	const n, keep = 50, 3
	s := subscription("lag", 100, filter("lag"), filter("lag.other"))
	s.AckWait = patience
	publish(t, b.Driver, raws("lag", n)...)
	publish(t, b.Driver, raws("lag.not.mine", n)...)
	var got tally
	stop := begin(t, b.Driver, s, func(d events.Delivery) {
		if got.add(d.Raw().ID); got.different() > keep {
			_ = d.Ack(context.Background())
		}
	})
	until(t, "all of them", func() bool { return got.different() == n })
	is := func(want int64) {
		t.Helper()
		var lag int64
		for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
			var err error
			if lag, err = b.Lag(t.Context(), "lag"); err != nil {
				t.Fatal(err)
			}
			if lag == want {
				return
			}
		}
		t.Errorf("the lag is %d, want %d", lag, want)
	}
	is(keep)
	stop()
	publish(t, b.Driver, raws("lag.other", n)...)
	is(n + keep)
}
