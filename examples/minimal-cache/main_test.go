package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/cache"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// A browser, which keeps the cookie, sees each page as it has saved it, and then from the cache.
func TestPages(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	quiet := slog.New(slog.DiscardHandler)
	if _, err := migrate.Up(t.Context(), set.URL, migrate.Set{Name: "outbox", Files: outbox.Migrations}); err != nil {
		t.Fatal(err)
	}
	router, err := db.Open(t.Context(), db.Config{Primary: set.URL, Replicas: set.ReplicaURLs, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	redis, err := rueidis.ParseURL(set.RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	store, err := cache.OpenStore(t.Context(), cache.StoreConfig{Redis: &redis, Prefix: set.KeyPrefix, Timeout: time.Second, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: set.URL, Invalidator: store, Logger: quiet, Poll: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{router.Run, store.Run, relay.Run} {
		running.Go(func() { _ = run(ctx) })
	}
	t.Cleanup(func() { stop(); running.Wait(); store.Close(); router.Close() })
	if _, err := router.Write(ctx).Exec(ctx, "CREATE TABLE page (path text PRIMARY KEY, body text NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	handler, err := pages(router, store, []byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Transport: server.Client().Transport}
	get := func() string {
		response, err := browser.Get(server.URL + "/a")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return string(body)
	}
	if got := get(); !strings.Contains(got, "not found") {
		t.Errorf("at first: %q", got)
	}
	for i := range 20 {
		text := fmt.Sprint("version ", i)
		response, err := browser.PostForm(server.URL+"/a", url.Values{"body": {text}})
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response, err)
		}
		_ = response.Body.Close()
		for limit := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			got := get()
			if !strings.HasPrefix(got, text+" ") {
				t.Fatalf("saved %q, read %q", text, got)
			}
			if strings.Contains(got, "cache") {
				break
			}
			if time.Now().After(limit) {
				t.Fatal("nothing comes from the cache")
			}
		}
	}
}
