package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// The file says where to serve and how to end: a request that is under way when the server is asked to stop gets its answer, and
// meanwhile /readyz sends others away.
func TestServeDrains(t *testing.T) {
	t.Parallel()
	env := stacktest.Postgres(t, stacktest.Migrated(postgres.Migrations))
	conn, watcher := connect(t, env.URL), connect(t, env.URL)

	// Free a moment ago.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	path := configFile(t, fmt.Sprintf(`
database: {url: %q, max: 4}
http: {host: 127.0.0.1, port: %d, corsOrigins: [https://front.example], drainDelay: 500ms, drainTimeout: 10s}
auth: {jwtSecret: %s}
`, env.URL, port, strings.Repeat("s", 32)))
	s := defaultSettings()
	// Without the environment of whoever runs the test.
	if _, err := config.Load(&s, config.Sources{Path: path, Others: sections()}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, s, armLoadline) }()
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	ready := func() int {
		response, err := http.Get(base + "/readyz")
		if err != nil {
			return 0
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	until(t, "the server is ready", func() bool { return ready() == http.StatusOK })

	// The file says whose front ends may use it.
	for origin, want := range map[string]string{"https://front.example": "https://front.example", "https://other.example": ""} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/tags", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", origin)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := response.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("to %s access is allowed for %q, want %q", origin, got, want)
		}
	}

	// The registration has to wait for us.
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE users IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string, 1)
	go func() {
		response, err := http.Post(base+"/api/users", "application/json",
			strings.NewReader(`{"user": {"username": "ann", "email": "ann@example.com", "password": "correct horse"}}`))
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		answer <- fmt.Sprintf("%d %s", response.StatusCode, body)
	}()
	until(t, "the registration waits", func() bool {
		var waiting bool
		// Not in the transaction, which would see the same activity for ever.
		err := watcher.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waiting)
		return err == nil && waiting
	})
	stop()
	until(t, "/readyz says no", func() bool { return ready() == http.StatusServiceUnavailable })
	until(t, "nobody is let in", func() bool { return ready() == 0 })
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; !strings.HasPrefix(got, "201 ") {
		t.Errorf("the registration got %s", got)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("serve does not end")
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
