package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// A browser, which keeps the cookie, sees each note that it has saved.
func TestNotes(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	router, err := db.Open(t.Context(), db.Config{Primary: d.URL, Replicas: d.ReplicaURLs, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _ = router.Run(ctx) })
	t.Cleanup(func() { stop(); wait.Wait(); router.Close() })
	if _, err := router.Write(ctx).Exec(ctx, "CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	if _, err := notes(router, []byte("short")); err == nil {
		t.Error("a short key is taken")
	}
	handler, err := notes(router, []byte("0123456789abcdef"))
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
	replicas := 0
	for i := range 50 {
		text := strings.Repeat("x", i+1)
		response, err := browser.PostForm(server.URL, url.Values{"text": {text}})
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response, err)
		}
		_ = response.Body.Close()
		response, err = browser.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if !strings.HasPrefix(string(body), text+" ") {
			t.Errorf("saved %d, read %q", i, body)
		}
		if strings.Contains(string(body), "true") {
			replicas++
		}
	}
	if replicas == 0 { // how many is a matter of how busy the machine is; see TestReadYourWrites
		t.Errorf("%d of 50 reads were from replicas", replicas)
	}
}
