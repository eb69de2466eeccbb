package natsjs

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// After a while in which the process stood still, what it held is somebody else's, and no sign of life
// makes it its own again.
func TestWhatIsNoLongerHeldIsLeft(t *testing.T) {
	t.Parallel()
	d := &Driver{began: time.Now().Add(-2 * time.Hour)}
	f := newFeed(d, "group", time.Hour)
	stale, fresh := &delivery{d: d}, &delivery{d: d}
	fresh.heard.Store(int64(2 * time.Hour))
	f.queue = []*delivery{stale, fresh, stale}
	if got, ok := f.next(t.Context()); !ok || got != fresh {
		t.Errorf("next is %p, %v, not the fresh one, %p", got, ok, fresh)
	}
	f.current = nil
	f.alive(t.Context())
	if got, ok := f.next(t.Context()); ok {
		t.Errorf("there is one more, %p", got)
	}
}

// What the server says of a request, and what is asked for then.
func TestRequests(t *testing.T) {
	t.Parallel()
	status := func(code, description string) *nats.Msg {
		return &nats.Msg{Header: nats.Header{"Status": {code}, "Description": {description}, "Nats-Pending-Messages": {"3"}}}
	}
	for name, c := range map[string]struct {
		says            *nats.Msg
		asked           int // afterwards
		works, troubled bool
	}{
		"heartbeat":         {says: status("100", "Idle Heartbeat"), asked: 4, works: true},
		"expiry":            {says: status("408", "Request Timeout")},
		"no interest":       {says: status("408", "Interest Expired")},
		"leadership change": {says: status("409", "Leadership Change")},
		"server shutdown":   {says: status("409", "Server Shutdown"), asked: 4, troubled: true},
		"consumer deleted":  {says: status("409", "Consumer Deleted"), asked: 4, troubled: true},
		"too much":          {says: status("409", "Exceeded MaxRequestBatch of 1"), asked: 4, troubled: true},
		"nobody there":      {says: status("503", ""), asked: 4, troubled: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			worked := false
			p := &puller{f: newFeed(nil, "group", time.Hour), works: func() { worked = true }, trouble: make(chan error, 1)}
			if n := p.ask(4, 0); n != 4 {
				t.Errorf("it asks for %d", n)
			}
			if n := p.ask(4, 0); n != 0 {
				t.Errorf("it asks for %d more", n)
			}
			p.received(c.says)
			if p.asked != c.asked || worked != c.works || (len(p.trouble) > 0) != c.troubled {
				t.Errorf("asked %d, works %v, trouble %d", p.asked, worked, len(p.trouble))
			}
		})
	}
	p := &puller{}
	for _, c := range []struct{ prefetch, waiting, want int }{{1, 0, 1}, {1, 1, 0}, {8, 8, 0}, {8, 5, 0}, {8, 4, 4}, {8, 9, 0}} {
		p.asked = 0
		if n := p.ask(c.prefetch, c.waiting); n != c.want {
			t.Errorf("with %d of %d it asks for %d, want %d", c.waiting, c.prefetch, n, c.want)
		}
	}
	p.asked, p.heard = 1, time.Now().Add(-3*heartbeat)
	if !p.silent() {
		t.Error("it does not notice that the server is silent")
	}
	if p.over(); p.silent() {
		t.Error("it waits for nothing")
	}
}
