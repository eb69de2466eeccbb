package natsjs

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/loadlinehq/loadline/events"
)

// maxAtomic is the server's for the messages of an atomic batch (ADR-50).
const maxAtomic = 1000

// publishAtomic sends up to 1000 messages as one batch, of which the server stores all or
// none, in their order. What it refuses whole, for one duplicate or one that is too large, is
// sent one by one.
func (d *Driver) publishAtomic(ctx context.Context, raws []events.Raw, messages []*nats.Msg, errs []error) {
	for begin := 0; begin < len(raws); begin += maxAtomic {
		end := min(begin+maxAtomic, len(raws))
		d.publishChunk(ctx, raws[begin:end], messages[begin:end], errs[begin:end])
		// Later messages may have the keys of those that failed.
		stopped := make(map[string]bool)
		chains(raws[:end], errs[:end], stopped)
		for i := end; i < len(raws); i++ {
			if errs[i] == nil && stopped[keyOf(&raws[i])] {
				errs[i] = errEarlierNotStored
			}
		}
	}
}

func (d *Driver) publishChunk(ctx context.Context, raws []events.Raw, messages []*nats.Msg, errs []error) {
	stopped := make(map[string]bool)
	chains(raws, errs, stopped) // marks what comes after one that is not sent
	var sent []int
	for i := range raws {
		if errs[i] == nil {
			sent = append(sent, i)
		}
	}
	if len(sent) < 2 {
		d.publishInRounds(ctx, raws, messages, errs)
		return
	}
	id := rand.Text()
	batch := make([]*nats.Msg, len(sent))
	for n, i := range sent {
		m := *messages[i]
		m.Header = maps.Clone(m.Header)
		m.Header["Nats-Batch-Id"] = []string{id}
		m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(n + 1)}
		if n == len(sent)-1 {
			m.Header["Nats-Batch-Commit"] = []string{"1"}
		}
		batch[n] = &m
	}
	last := len(batch) - 1
	err := d.publisher.exchange(ctx, batch, func(i int) bool { return i == last })[last]
	if err == nil {
		return
	}
	if errors.Is(err, events.ErrUnavailable) {
		for _, i := range sent {
			errs[i] = err
		}
		return
	}
	d.publishInRounds(ctx, raws, messages, errs)
}
