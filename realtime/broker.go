package realtime

import (
	"fmt"
	"sync"

	"github.com/centrifugal/centrifuge"
)

// broker asks Redis once for what many want to know at the same time: after a restart all clients ask for the history of the same channels. What
// centrifuge has for that, Config.UseSingleFlight, is one for all nodes of a process, and gives one gateway the history of another with other channels
// of the same name.
type broker struct {
	*centrifuge.RedisBroker

	mu    sync.Mutex
	asked map[string]*question
}

// question is asked now, and once more for those who came meanwhile: who has begun to listen since must not be answered with what was before.
type question struct {
	now, next *history
}

type history struct {
	done         chan struct{}
	publications []*centrifuge.Publication
	top          centrifuge.StreamPosition
	err          error
}

// History implements [centrifuge.Broker]. What it returns is shared, and not to be changed.
func (b *broker) History(channel string, o centrifuge.HistoryOptions) ([]*centrifuge.Publication, centrifuge.StreamPosition, error) {
	since := centrifuge.StreamPosition{}
	if o.Filter.Since != nil {
		since = *o.Filter.Since
	}
	key := fmt.Sprintf("%q %d %v %d %s %v", channel, since.Offset, o.Filter.Reverse, o.Filter.Limit, since.Epoch, o.MetaTTL)
	h := b.once(key, func(h *history) { h.publications, h.top, h.err = b.RedisBroker.History(channel, o) })
	return h.publications, h.top, h.err
}

// once returns an answer to what was asked after it was called.
func (b *broker) once(key string, ask func(*history)) *history {
	b.mu.Lock()
	q := b.asked[key]
	if q != nil && q.next != nil {
		h := q.next
		b.mu.Unlock()
		<-h.done
		return h
	}
	h := &history{done: make(chan struct{})}
	if q == nil {
		q = &question{now: h}
		b.asked[key] = q
		b.mu.Unlock()
	} else {
		before := q.now
		q.next = h
		b.mu.Unlock()
		<-before.done
	}
	ask(h)
	b.mu.Lock()
	if q.now, q.next = q.next, nil; q.now == nil {
		delete(b.asked, key)
	}
	b.mu.Unlock()
	close(h.done)
	return h
}
