package adminport_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/adminport"
	"github.com/loadlinehq/loadline/telemetry/live"
)

// buildLoadline builds the command, for its NATS server.
func buildLoadline(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "loadline")
	if out, err := exec.Command("go", "build", "-o", program, "../../../cmd/loadline").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

func TestMonitor(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	s, err := stack.Open(t.Context(), stack.Config{
		Dir: t.TempDir(), PortBase: stack.AnyPortBase, Replicas: 2, DisableSync: true,
		NATSCommand: []string{buildLoadline(t), "nats-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		if err := stack.Wipe(s.Dir()); err != nil {
			t.Error(err)
		}
	})
	m := adminport.NewMonitor(s, "http://app.example", "http://admin.example")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	page, err := m.Page()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(page.Close)
	pages := httptest.NewServer(adminport.Handler(m, page))
	t.Cleanup(pages.Close)

	see := func(what string, holds func(adminport.Status, map[string]adminport.Service) bool) {
		t.Helper()
		var status adminport.Status
		for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
			response, err := pages.Client().Get(pages.URL + "/status.json")
			if err != nil {
				t.Fatal(err)
			}
			status = adminport.Status{}
			err = json.NewDecoder(response.Body).Decode(&status)
			_ = response.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			byName := make(map[string]adminport.Service)
			for _, service := range status.Services {
				byName[service.Name] = service
			}
			if holds(status, byName) {
				return
			}
		}
		t.Fatalf("not seen within 10 s: %s; last:\n%+v", what, status)
	}
	run := func(name, sql string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), stack.SuperuserURL(find(s, name).Addr))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}

	// The page shows what the stack knows, and which hop does not answer.
	shown := func() (v struct {
		Path []struct {
			ID          string
			Utilisation *float64
		}
		Stack struct{ Services []struct{ Name string } }
	},
	) {
		t.Helper()
		response, err := pages.Client().Get(pages.URL + live.Path + "/view")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}

	see("both replicas without lag", func(status adminport.Status, by map[string]adminport.Service) bool {
		for _, name := range []string{"replica-1", "replica-2"} {
			if by[name].Lag == nil || by[name].Lag.Bytes != 0 {
				return false
			}
		}
		return status.App.URL == "http://app.example" && len(status.Services) == 5
	})
	if v := shown(); len(v.Stack.Services) != 5 || len(v.Path) != 5 || v.Path[2].Utilisation == nil || v.Path[4].Utilisation == nil {
		t.Errorf("the page does not show the servers, or how busy Redis and NATS are: %+v", v)
	}
	run("replica-2", "SELECT pg_wal_replay_pause()")
	run("primary", "CREATE TABLE filler AS SELECT generate_series(1, 20000)")
	see("replica-2 alone with lag", func(_ adminport.Status, by map[string]adminport.Service) bool {
		one, two := by["replica-1"].Lag, by["replica-2"].Lag
		return one != nil && one.Bytes == 0 && two != nil && two.Bytes > 100_000
	})
	run("replica-2", "SELECT pg_wal_replay_resume()")
	see("replica-2 without lag again", func(_ adminport.Status, by map[string]adminport.Service) bool {
		return by["replica-2"].Lag != nil && by["replica-2"].Lag.Bytes == 0
	})
	signal := func(name string, signal syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(find(s, name).PID, signal); err != nil {
			t.Fatal(err)
		}
	}
	// Both accept connections all the while: the kernel does that for them.
	signal("redis", syscall.SIGSTOP)
	signal("nats", syscall.SIGSTOP)
	see("redis and nats paused", func(_ adminport.Status, by map[string]adminport.Service) bool {
		return strings.Contains(by["redis"].Problem, "does not answer") && strings.Contains(by["nats"].Problem, "does not answer")
	})
	signal("redis", syscall.SIGCONT)
	signal("nats", syscall.SIGCONT)
	see("redis and nats back", func(_ adminport.Status, by map[string]adminport.Service) bool {
		return by["redis"].Problem == "" && by["nats"].Problem == ""
	})
	signal("replica-1", syscall.SIGKILL)
	see("replica-1 ended", func(_ adminport.Status, by map[string]adminport.Service) bool {
		return by["replica-1"].State == stack.Exited && by["replica-1"].Lag == nil && by["primary"].Problem == ""
	})
}

func find(s *stack.Stack, name string) stack.Service {
	for _, service := range s.Services() {
		if service.Name == name {
			return service
		}
	}
	return stack.Service{}
}
