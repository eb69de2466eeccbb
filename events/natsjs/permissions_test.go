package natsjs_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
)

// The permissions in docs/events.md are enough for all that a driver does: the server says which
// are missing to the connection's handler of errors.
func TestPermissions(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```\nauthorization {")
	block, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/events.md has no authorization any more")
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte("authorization {"+block), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.NoSigs, options.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	options.JetStream, options.StoreDir = true, t.TempDir()
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}

	c := natsjs.Config{
		URL: s.ClientURL(), MaxBytes: 16 << 20, DeadLetterMaxBytes: 4 << 20, MaxMessages: 10, PurgeAt: 0.1, Interval: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Options: []nats.Option{nats.UserInfo("api", "secret"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Error(err) })},
	}
	d := open(t, c)
	run(t, d)
	c.MaxAge, c.Update = time.Hour, true
	open(t, c)

	ctx, stop := context.WithCancel(context.Background())
	var background sync.WaitGroup
	t.Cleanup(func() { stop(); background.Wait() })
	hints := d.Hints("relay")
	hinted := make(chan struct{}, 1)
	background.Go(func() {
		_ = hints.Receive(ctx, func() {
			select {
			case hinted <- struct{}{}:
			default:
			}
		})
	})

	group := subscription("group", "a", "b")
	group.StartAt = time.Now().Add(-time.Hour)
	background.Go(func() {
		err := d.Subscribe(ctx, group, func(m events.Delivery) {
			if m.Raw().Type == "b" {
				_ = m.Dead(ctx, events.DeadLetter{Reason: events.ReasonFailed, Time: time.Now()})
				return
			}
			_ = m.Ack(ctx)
		})
		if err != nil {
			t.Error(err)
		}
	})
	publish(t, d, raw("1", "a"), raw("2", "b"))
	js, err := jetstream.New(connect(t, "nats://api:secret@"+s.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	within(t, "a dead letter", func() bool { return stream(t, js, natsjs.DefaultDeadLetters).State.Msgs == 1 })
	within(t, "room is made", func() bool { return stream(t, js, natsjs.DefaultStream).State.FirstSeq > 1 })
	within(t, "a hint", func() bool { hints.Send(); return len(hinted) > 0 })
	if floors, err := d.Floors(ctx, []string{"group"}); err != nil || floors["group"] != 2 {
		t.Errorf("the floors are %v, %v", floors, err)
	}
	if err := d.Rewind(ctx, "group", 0); err != nil {
		t.Error(err)
	}
	if _, err := d.Lag(ctx, "group"); err != nil {
		t.Error(err)
	}
}
