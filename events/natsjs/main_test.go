package natsjs_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// TestMain is also the NATS server of the stacks that tests start.
func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // they mostly wait
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// config is that of a driver with streams of its own.
func config(set *stacktest.Set) natsjs.Config {
	return natsjs.Config{
		URL: set.NATSURL, Stream: set.StreamPrefix + "EVENTS", DeadLetters: set.StreamPrefix + "DLQ", Advisories: set.StreamPrefix + "ADVISORIES",
		SubjectPrefix: set.SubjectPrefix, MaxBytes: 256 << 20, DeadLetterMaxBytes: 64 << 20, Logger: slog.New(slog.DiscardHandler),
	}
}

// share is a part of it that no other number has.
func share(c natsjs.Config, n int) natsjs.Config {
	part := func(name string) string { return fmt.Sprintf("%s_%d", name, n) }
	c.Stream, c.DeadLetters, c.Advisories = part(c.Stream), part(c.DeadLetters), part(c.Advisories)
	c.SubjectPrefix = fmt.Sprintf("%s%d.", c.SubjectPrefix, n)
	return c
}

func open(t testing.TB, c natsjs.Config) *natsjs.Driver {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	d, err := natsjs.Open(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}
