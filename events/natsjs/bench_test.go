package natsjs_test

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/internal/ratio"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

const benchBatch = 500

var benchID atomic.Int64

// batch makes messages as an outbox's relay has them.
func batch(keys int) []events.Raw {
	all := make([]events.Raw, benchBatch)
	for i := range all {
		id := strconv.FormatInt(benchID.Add(1), 10)
		all[i] = events.Raw{ID: id, Type: "bench", Partition: -1, Body: bytes.Repeat([]byte("x"), 512), Header: map[string]string{
			"ce-specversion": "1.0", "ce-id": id, "ce-source": "/bench", "ce-type": "bench", "ce-time": "2026-01-01T00:00:00Z", "Idempotency-Key": id,
		}}
		if keys > 0 {
			key := strconv.Itoa(i % keys)
			all[i].Partition, all[i].Header["ce-partitionkey"] = events.Partition(key), key
		}
	}
	return all
}

func benchmarkPublish(b *testing.B, what string, keys int, ids bool) {
	c := config(stacktest.New(b))
	d := open(b, c)
	js, err := jetstream.New(connect(b, c.URL))
	if err != nil {
		b.Fatal(err)
	}
	s, err := js.Stream(b.Context(), c.Stream)
	if err != nil {
		b.Fatal(err)
	}
	const times = 2
	var fastest atomic.Int64
	measure := func(publish func([]events.Raw) error) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			if err := s.Purge(b.Context()); err != nil {
				return 0, err
			}
			var took time.Duration
			for range times {
				all := batch(keys)
				if !ids {
					for i := range all {
						all[i].ID = ""
					}
				}
				began := time.Now()
				if err := publish(all); err != nil {
					return 0, err
				}
				took += time.Since(began)
			}
			return took, nil
		}
	}
	raw := measure(func(all []events.Raw) error {
		futures := make([]jetstream.PubAckFuture, len(all))
		for i := range all {
			m := &nats.Msg{Subject: c.SubjectPrefix + "events.bench", Data: all[i].Body, Header: make(nats.Header, len(all[i].Header)+1)}
			for name, value := range all[i].Header {
				m.Header[name] = []string{value}
			}
			if all[i].ID != "" {
				m.Header[jetstream.MsgIDHeader] = []string{all[i].ID}
			}
			var err error
			if futures[i], err = js.PublishMsgAsync(m); err != nil {
				return err
			}
		}
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				return err
			}
		}
		return nil
	})
	ours := measure(func(all []events.Raw) error { return errors.Join(d.Publish(b.Context(), all)...) })
	var result ratio.Result
	for b.Loop() {
		var err error
		result, err = ratio.Measure(100, raw, func() (time.Duration, error) {
			took, err := ours()
			if rate := int64(float64(times*benchBatch) / took.Seconds()); rate > fastest.Load() {
				fastest.Store(rate)
			}
			return took, err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(result.Median, "ratio")
	fmt.Printf("# %s: %s, at best %d/s\n", what, result, fastest.Load())
}

// The time that 500 messages take until all are acknowledged, against nats.go's own
// asynchronous publishing.
func BenchmarkPublish(b *testing.B) {
	benchmarkPublish(b, "publish 500 and wait for all / nats.go PublishMsgAsync", 0, true)
}

func BenchmarkPublishWithoutID(b *testing.B) {
	benchmarkPublish(b, "publish 500 without ids / nats.go PublishMsgAsync", 0, false)
}

// What order costs: 100 keys, so that there are five rounds; and 10, so that there are 50.
func BenchmarkPublishKeyed(b *testing.B) {
	for _, keys := range []int{100, 10} {
		b.Run(strconv.Itoa(keys), func(b *testing.B) {
			benchmarkPublish(b, fmt.Sprintf("publish 500 of %d keys in their order / nats.go PublishMsgAsync without order", keys), keys, true)
		})
	}
}
