package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// flaky is a broker whose acknowledgements are lost now and then: each such event is
// published again.
type flaky struct {
	events.Driver
	n atomic.Int64
}

func (f *flaky) Publish(ctx context.Context, all []events.Raw) []error {
	errs := f.Driver.Publish(ctx, all)
	if f.n.Add(1)%3 == 0 {
		for i := range errs {
			errs[i] = errors.Join(events.ErrUnavailable, errs[i])
		}
	}
	return errs
}

// Each order has one mail, although events are published twice.
func TestShop(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t, stacktest.Migrated(outbox.Migrations, inbox.Migrations))
	pool, err := pgxpool.New(t.Context(), set.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text); CREATE TABLE mails (text text)"); err != nil {
		t.Fatal(err)
	}
	driver, err := natsjs.Open(t.Context(), natsConfig(set))
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	handler, run, err := shop(database{pool}, &flaky{Driver: driver})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		time.Sleep(200 * time.Millisecond) // the relay's goroutine, before its pool is closed
	}()
	server := httptest.NewServer(handler)
	defer server.Close()
	for range 10 {
		response, err := http.PostForm(server.URL, url.Values{"item": {"book"}})
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response, err)
		}
		_ = response.Body.Close()
	}
	said := ""
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if said = strings.TrimSpace(string(body)); said == "10 orders, 10 mails" || time.Now().After(limit) {
			break
		}
	}
	time.Sleep(2 * time.Second) // for mails that should not come
	var mails int
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM mails").Scan(&mails); err != nil || mails != 10 {
		t.Errorf("%s; then %d mails, %v", said, mails, err)
	}
}

func natsConfig(set *stacktest.Set) natsjs.Config {
	return natsjs.Config{
		URL: set.NATSURL, Stream: set.StreamPrefix + "EVENTS", DeadLetters: set.StreamPrefix + "DLQ", Advisories: set.StreamPrefix + "ADVISORIES",
		SubjectPrefix: set.SubjectPrefix, MaxBytes: 16 << 20, DeadLetterMaxBytes: 16 << 20, Logger: slog.New(slog.DiscardHandler),
	}
}
