package mesh

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/examples/conduit"
)

const (
	// viewQueue holds the views of some seconds while the broker is away: a guess. What
	// does not fit is not counted, which a reader does not notice.
	viewQueue = 10_000
	viewBatch = 200
	// viewLinger is how long a view waits for others to go with it.
	viewLinger = 20 * time.Millisecond
)

// errViewLost is logged once in a while.
var errViewLost = errors.New("mesh: too many views wait for the broker")

// Views publishes views outside of the request.
type Views struct {
	log   *slog.Logger
	queue chan events.Message
	lost  atomic.Int64
}

// NewViews needs Run.
func NewViews(log *slog.Logger) *Views {
	return &Views{log: log, queue: make(chan events.Message, viewQueue)}
}

// Viewed takes a view and returns at once. Its context's trace goes with it.
func (v *Views) Viewed(ctx context.Context, article int64) error {
	m, err := ArticleViewed.New(conduit.ArticleViewed{ArticleID: article})
	if err != nil {
		return err
	}
	m = m.From(ctx)
	select {
	case v.queue <- m:
		return nil
	default:
	}
	if v.lost.Add(1)%1000 == 1 {
		return errViewLost
	}
	return nil
}

// Run publishes until ctx is done, and then what is in the queue, for as long as one
// publication may take.
func (v *Views) Run(ctx context.Context, publisher *events.Publisher) error {
	for {
		select {
		case first := <-v.queue:
			v.publish(ctx, publisher, v.collect(ctx, first))
		case <-ctx.Done():
			for len(v.queue) > 0 {
				if !v.publish(context.WithoutCancel(ctx), publisher, v.collect(ctx, <-v.queue)) {
					break
				}
			}
			return nil
		}
	}
}

func (v *Views) collect(ctx context.Context, first events.Message) []events.Message {
	batch := []events.Message{first}
	timer := time.NewTimer(viewLinger)
	defer timer.Stop()
	for len(batch) < viewBatch {
		select {
		case m := <-v.queue:
			batch = append(batch, m)
		case <-timer.C:
			return batch
		case <-ctx.Done():
			timer.Reset(0) // what is there, and no waiting
			ctx = context.Background()
		}
	}
	return batch
}

func (v *Views) publish(ctx context.Context, publisher *events.Publisher, batch []events.Message) bool {
	if err := publisher.Publish(ctx, batch...); err != nil {
		v.log.WarnContext(ctx, "views may not be counted", slog.Int("views", len(batch)), slog.Any("error", err))
		return false
	}
	return true
}
