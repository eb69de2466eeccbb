package inbox

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/loadlinehq/loadline/events"
)

// Recent remembers for a while what has been handled, so that a repeat need not open a
// transaction; package redisrecent keeps it in Redis. It may forget, and be away.
type Recent interface {
	// Get returns what was put under each of the keys, and "" where there is nothing.
	Get(ctx context.Context, keys []string) ([]string, error)
	// Put keeps a value under each of the keys for a while.
	Put(ctx context.Context, keys []string, value string) error
}

const (
	// recentLimit bounds what a Recent that hangs costs a handler; recentPause is how long it
	// is then left alone.
	recentLimit = 50 * time.Millisecond
	recentPause = time.Second
	// confirmedFor is how long after Follow has seen the timeline its repeats are believed. It
	// must be over when the group is rewound the second time: see recent.handled.
	confirmedFor = 5 * time.Second
)

// recent is a Recent with what makes it safe. A note that something is handled outlives a
// failover that has lost the effect. So its value is the timeline on which the effect was
// committed, and it counts while Follow has seen the primary there a moment ago. Who has not
// noticed the failover yet may still pass over an event whose effect is lost; but the
// group is rewound again after Settle, when everybody has, or believes no note.
type recent struct {
	Recent
	confirmed atomic.Pointer[confirmation]
	pausedTo  atomic.Int64 // Unix nanoseconds
}

type confirmation struct {
	timeline string
	at       time.Time
}

func (r *recent) confirm(timeline int64, at time.Time) {
	if r.Recent != nil {
		r.confirmed.Store(&confirmation{strconv.FormatInt(timeline, 10), at})
	}
}

// timeline is the one that is believed, or "".
func (r *recent) timeline() string {
	if r.Recent == nil || time.Now().UnixNano() < r.pausedTo.Load() {
		return ""
	}
	if c := r.confirmed.Load(); c != nil && time.Since(c.at) < confirmedFor {
		return c.timeline
	}
	return ""
}

// handled reports which messages surely have had their effect; nil is none of them. The
// timeline is what put needs, if they have it afterwards.
func (i *Inbox) handled(ctx context.Context, messages []*events.Message) (which []bool, timeline string) {
	timeline = i.recent.timeline()
	if timeline == "" {
		return nil, ""
	}
	ctx, cancel := context.WithTimeout(ctx, recentLimit)
	defer cancel()
	values, err := i.recent.Get(ctx, i.keys(messages))
	if err != nil || len(values) != len(messages) {
		i.recentFailed(ctx, err)
		return nil, timeline
	}
	which = make([]bool, len(messages))
	for n, value := range values {
		which[n] = value == timeline
	}
	return which, timeline
}

// put notes that messages are handled, after the commit. The timeline is that of before the
// transaction: if there was a failover since, the note will not count.
func (i *Inbox) put(ctx context.Context, messages []*events.Message, timeline string) {
	if timeline == "" || len(messages) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recentLimit)
	defer cancel()
	if err := i.recent.Put(ctx, i.keys(messages), timeline); err != nil {
		i.recentFailed(ctx, err)
	}
}

func (i *Inbox) recentFailed(ctx context.Context, err error) {
	until := time.Now().Add(recentPause).UnixNano()
	if was := i.recent.pausedTo.Swap(until); until-was > int64(time.Minute) {
		i.c.Logger.WarnContext(ctx, "inbox: what was handled recently is not known; the database says it", "group", i.c.Group, "error", err)
	}
}

func (i *Inbox) keys(messages []*events.Message) []string {
	keys := make([]string, len(messages))
	for n, m := range messages {
		keys[n] = i.c.Group + ":" + m.ID
	}
	return keys
}
