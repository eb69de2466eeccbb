package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
	"github.com/loadlinehq/loadline/realtime"
)

func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	m.Run()
}

// What one visitor writes comes to who polls, with a token, and is read with it.
func TestWall(t *testing.T) {
	t.Parallel()
	lines := fstest.MapFS{"00001_line.sql": {Data: []byte("-- +goose Up\nCREATE TABLE line (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL);\n")}}
	set := stacktest.New(t, stacktest.Migrated(lines, outbox.Migrations))
	quiet := slog.New(slog.DiscardHandler)
	router, err := db.Open(t.Context(), db.Config{Primary: set.URL, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	driver, err := natsjs.Open(t.Context(), natsjs.Config{
		URL: set.NATSURL, Stream: set.StreamPrefix + "EVENTS", DeadLetters: set.StreamPrefix + "DLQ", Advisories: set.StreamPrefix + "ADVISORIES",
		SubjectPrefix: set.SubjectPrefix, MaxBytes: 16 << 20, DeadLetterMaxBytes: 16 << 20, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	relay, err := outbox.NewRelay(outbox.RelayConfig{DSN: set.URL, Driver: driver, Source: "/wall", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := causal.NewKeys([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := realtime.Open(t.Context(), realtime.Config{
		Redis: []string{set.RedisURL}, Prefix: set.KeyPrefix + "rt", Authenticate: realtime.Anonymous, Keys: keys, Logger: quiet,
		Namespaces: map[string]realtime.Namespace{"wall": {Subscribe: realtime.Anyone, History: 100, HistoryAge: time.Minute}},
	})
	if err != nil {
		t.Fatal(err)
	}
	handler, consumer, err := wall(router, driver, gateway, keys)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{relay.Run, consumer.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = gateway.Close()
		_ = driver.Close()
		server.Close()
		router.Close()
	})

	type place struct {
		Offset       uint64 `json:"offset"`
		Epoch        string `json:"epoch"`
		Publications []struct {
			Data line
			Tags map[string]string
		} `json:"publications"`
	}
	poll := func(at string) (answer struct{ Channels map[string]place }) {
		t.Helper()
		response, err := http.Post(server.URL+"/realtime/poll", "application/json", strings.NewReader(`{"channels":{"wall:main":`+at+`}}`))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			t.Fatal(response.Status, err)
		}
		return answer
	}
	begin := poll(`{}`).Channels["wall:main"]
	response, err := http.PostForm(server.URL+"/lines", url.Values{"text": {"hello"}})
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response, err)
	}
	_ = response.Body.Close()
	at, _ := json.Marshal(map[string]any{"epoch": begin.Epoch, "offset": begin.Offset})
	told := poll(string(at)).Channels["wall:main"].Publications
	if len(told) != 1 || told[0].Data != (line{1, "hello"}) || told[0].Tags[realtime.TagToken] == "" {
		t.Fatalf("%+v", told)
	}
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/lines", nil)
	request.Header.Set(causal.HeaderName, told[0].Tags[realtime.TagToken])
	response, err = http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil || strings.TrimSpace(body.String()) != `[{"id":1,"text":"hello"}]` {
		t.Errorf("%s %s, %v", response.Status, &body, err)
	}
}
