package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/internal/stack"
)

func get(t *testing.T, url string) string {
	t.Helper()
	// A new connection each time: the balancer spreads connections.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// One life of a stack, as a user sees it.
func TestUp(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	dir := t.TempDir()
	r := up(t, dir, "--setup", "echo setup found $DATABASE_URL", "--instances", "2", "--", os.Args[0], "test-app")
	ready := r.waitReady()

	t.Run("ready file", func(t *testing.T) {
		want := []string{"primary primary", "replica-1 replica", "replica-2 replica", "redis redis", "nats nats", "app-1 app", "app-2 app"}
		var got []string
		for _, s := range ready.Services {
			got = append(got, s.Name+" "+s.Role)
			if !alive(s.PID) {
				t.Errorf("%s: there is no process %d", s.Name, s.PID)
			}
			conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
			if err != nil {
				t.Errorf("%s: %v", s.Name, err)
				continue
			}
			_ = conn.Close()
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("services are %v, want %v", got, want)
		}
		if !strings.Contains(r.out.String(), "setup found postgres://app@") {
			t.Errorf("the setup did not run in the application's environment")
		}
	})

	t.Run("instances share one address", func(t *testing.T) {
		seen := make(map[string]int)
		for range 10 {
			port, rest, _ := strings.Cut(get(t, ready.App.URL), " ")
			seen[port]++
			if strings.Count(rest, "postgres://app@") != 3 {
				t.Fatalf("want the primary's address and two replicas' in %q", rest)
			}
		}
		if len(seen) != 2 {
			t.Errorf("answers came from %v, want two instances", seen)
		}
	})

	t.Run("status", func(t *testing.T) {
		r.eventually(5*time.Second, "lag of both replicas is known", func() bool {
			out, err := result(t, "status", "--data", dir)
			return err == nil && strings.Count(out, " B, ") == 2
		})
		if out, err := result(t, "status", "--json", "--data", dir); err != nil || !strings.Contains(out, `"name": "replica-2"`) {
			t.Errorf("status --json: %v\n%s", err, out)
		}
		if page := get(t, ready.Admin.URL); !strings.Contains(page, "<title>Loadline</title>") {
			t.Errorf("no live page, but %q", page)
		}
	})

	t.Run("psql", func(t *testing.T) {
		out, err := result(t, "psql", "--data", dir, "replica-1", "-XAtc", "SELECT pg_is_in_recovery()")
		if err != nil || strings.TrimSpace(out) != "t" {
			t.Errorf("psql replica-1: %v\n%s", err, out)
		}
		out, err = result(t, "psql", "--data", dir, "-XAtc", "SELECT NOT pg_is_in_recovery()")
		if err != nil || strings.TrimSpace(out) != "t" {
			t.Errorf("psql without a service: %v\n%s", err, out)
		}
		out, err = result(t, "psql", "--data", dir, "redis")
		if err == nil || !strings.Contains(out, `no PostgreSQL server "redis"`) {
			t.Errorf("psql redis: %v\n%s", err, out)
		}
	})

	t.Run("logs", func(t *testing.T) {
		out, err := result(t, "logs", "--data", dir, "-n", "100", "primary")
		if err != nil || !strings.Contains(out, "ready to accept connections") {
			t.Errorf("logs primary: %v\n%s", err, out)
		}
		out, err = result(t, "logs", "--data", dir, "nobody")
		if err == nil || !strings.Contains(out, "replica-1") {
			t.Errorf("logs nobody should name those that there are: %v\n%s", err, out)
		}
	})

	t.Run("one directory, one stack", func(t *testing.T) {
		out, err := result(t, "up", "--data", dir, "--port-base", "0", "--ready-file", r.ready)
		if err == nil || !strings.Contains(out, "is running in this directory") {
			t.Errorf("a second up: %v\n%s", err, out)
		}
		if _, err := os.Stat(r.ready); err != nil {
			t.Errorf("the second up has deleted the ready file of the first: %v", err)
		}
	})

	t.Run("a killed child is reported by name", func(t *testing.T) {
		late := 0
		for _, s := range ready.Services {
			began := time.Now()
			if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.waitPrinted(10*time.Second, fmt.Sprintf("DIED %s (pid %d) was ended by signal 9", s.Name, s.PID))
			if took := time.Since(began); took > time.Second {
				t.Logf("%s was reported after %s", s.Name, took)
				late++
			}
		}
		// Within a second; one stall of a busy machine is none of ours.
		if late > 1 {
			t.Errorf("%d of %d deaths were reported late", late, len(ready.Services))
		}
	})

	t.Run("down", func(t *testing.T) {
		if out, err := result(t, "down", "--data", dir); err != nil {
			t.Fatalf("down: %v\n%s", err, out)
		}
		if code := r.waitEnd(time.Second); code != 0 {
			t.Errorf("up ended with %d, want 0", code)
		}
		if _, err := os.Stat(r.ready); err == nil {
			t.Error("the ready file is still there")
		}
		out, err := result(t, "status", "--data", dir)
		if err == nil || !strings.Contains(out, "no stack is running") {
			t.Errorf("status without a stack: %v\n%s", err, out)
		}
	})
}

// Data survives a kill -9 of the command, and the next start ends what the killed
// one left behind.
func TestUpAfterKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	dir := t.TempDir()
	app := []string{"--replicas", "1", "--instances", "1", "--", os.Args[0], "test-app", "stubborn"}
	first := up(t, dir, app...)
	ready := first.waitReady()
	execute(t, ready, "CREATE TABLE note (text text)", "INSERT INTO note VALUES ('kept')")
	_ = first.cmd.Process.Kill()
	first.waitEnd(5 * time.Second)
	for _, s := range ready.Services {
		if !alive(s.PID) {
			t.Errorf("%s ended with the command; the test shows nothing", s.Name)
		}
	}
	if out, err := result(t, "status", "--data", dir); err == nil || !strings.Contains(out, "an earlier one was killed") {
		t.Errorf("status after the kill: %v\n%s", err, out)
	}

	second := up(t, dir, app...)
	again := second.waitReady()
	for _, s := range ready.Services {
		if alive(s.PID) {
			t.Errorf("%s of the killed run still runs", s.Name)
		}
	}
	var text string
	conn := connect(t, again)
	if err := conn.QueryRow(t.Context(), "SELECT text FROM note").Scan(&text); err != nil || text != "kept" {
		t.Errorf("the row is %q, %v; want it kept", text, err)
	}
	// Once more, and without a next start: down ends the rest.
	_ = second.cmd.Process.Kill()
	second.waitEnd(5 * time.Second)
	out, err := result(t, "down", "--data", dir)
	if err != nil || !strings.Contains(out, "app-1") {
		t.Errorf("down after the kill: %v\n%s", err, out)
	}
	for _, s := range again.Services {
		if alive(s.PID) {
			t.Errorf("%s still runs after down", s.Name)
		}
	}
}

// What was started when the command is killed is known, even if it was not ready.
func TestKillDuringStart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	dir := t.TempDir()
	r := up(t, dir, "--replicas", "0", "--instances", "1", "--", os.Args[0], "test-app", "mute", "stubborn")
	pid := 0
	r.eventually(30*time.Second, "app-1 has a process", func() bool {
		state, _ := stack.ReadState(dir)
		for _, s := range state.Services {
			if s.Name == "app-1" {
				pid = s.PID
			}
		}
		return pid != 0
	})
	_ = r.cmd.Process.Kill()
	r.waitEnd(5 * time.Second)
	if !alive(pid) {
		t.Error("app-1 ended with the command; the test shows nothing")
	}
	if out, err := result(t, "down", "--data", dir); err != nil || !strings.Contains(out, "app-1") {
		t.Errorf("down after the kill: %v\n%s", err, out)
	}
	if alive(pid) {
		t.Error("app-1 still runs")
	}
}

func connect(t *testing.T, ready readyFile) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), "postgres://app@"+ready.primary(t)+"/app?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

func execute(t *testing.T, ready readyFile, statements ...string) {
	t.Helper()
	conn := connect(t, ready)
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// The first Ctrl-C waits for an application that does not end; the second does not.
func TestSecondInterrupt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	r := up(t, t.TempDir(), "--replicas", "0", "--instances", "1", "--", os.Args[0], "test-app", "stubborn")
	ready := r.waitReady()
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	r.waitPrinted(5*time.Second, "Ctrl-C again ends everything by force")
	time.Sleep(300 * time.Millisecond) // nothing to wait for: that it does not end is the point
	if !alive(ready.service(t, "app-1").PID) {
		t.Fatal("the application ended at the first interrupt; the test shows nothing")
	}
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	r.waitEnd(8 * time.Second)
	for _, s := range ready.Services {
		if alive(s.PID) {
			t.Errorf("%s still runs", s.Name)
		}
	}
}

// Who reads the output may end by the same Ctrl-C, as tee does.
func TestInterruptWithoutReader(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "ready.json")
	r := &running{t: t, out: &output{}, ready: path, done: make(chan struct{})}
	r.cmd = loadline(t.Context(), "up", "--data", dir, "--port-base", "0", "--ready-file", path, "--replicas", "0", "--instances", "0")
	r.cmd.Stdout, r.cmd.Stderr = writer, writer
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	go func() {
		_ = r.cmd.Wait()
		close(r.done)
	}()
	ready := r.waitReady()
	_ = reader.Close()
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	r.waitEnd(20 * time.Second)
	for _, s := range ready.Services {
		if alive(s.PID) {
			t.Errorf("%s still runs", s.Name)
		}
	}
	if out, err := result(t, "down", "--wipe", "--data", dir); err != nil {
		t.Errorf("down: %v\n%s", err, out)
	}
}

// A wrapper that ends before the server which it runs does not cut that one short.
func TestDrainBehindWrapper(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	dir := t.TempDir()
	r := up(t, dir, "--replicas", "0", "--instances", "1", "--", "sh", "-c", os.Args[0]+" test-app drains & wait")
	r.waitReady()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	r.waitEnd(20 * time.Second)
	out, err := result(t, "logs", "--data", dir, "app-1")
	if err != nil || !strings.Contains(out, "drained") {
		t.Errorf("the server did not drain: %v\n%s", err, out)
	}
}

// An interrupt while the servers start leaves none of them behind.
func TestInterruptDuringStart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	dir := t.TempDir()
	r := up(t, dir)
	r.waitPrinted(30*time.Second, "redis")
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	if code := r.waitEnd(15 * time.Second); code != 128+int(syscall.SIGINT) {
		t.Errorf("up ended with %d, want %d", code, 128+int(syscall.SIGINT))
	}
	nothingLeft(t, dir)
}

// nothingLeft fails when a process is at home in the stack's directory, as the
// servers are.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if out, err := result(t, "down", "--data", dir); err != nil || !strings.Contains(out, "Nothing runs") {
		t.Errorf("something was left: %v\n%s", err, out)
	}
	homes, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, home := range homes {
		if cwd, err := os.Readlink(home); err == nil && strings.HasPrefix(cwd, dir+"/") {
			t.Errorf("%s is %s", home, cwd)
		}
	}
}

func TestUpRefuses(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	port := taken.Addr().(*net.TCPAddr).Port
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"a taken port":          {[]string{"--port-base", fmt.Sprint(port - stack.Ports{}.Redis())}, []string{fmt.Sprintf("port %d (redis)", port), "--port-base"}},
		"a mistyped flag":       {[]string{"--replcias", "3"}, []string{"unknown argument", "--replcias"}},
		"too many instances":    {[]string{"--instances", "99"}, []string{"--instances 99"}},
		"a setup for nothing":   {[]string{"--setup", "true"}, []string{"--setup needs an application"}},
		"too many replicas":     {[]string{"--replicas", "99"}, []string{"replicas: 99 is not between 0 and 8"}},
		"a broken application":  {[]string{"--replicas", "0", "--port-base", "0", "--", os.Args[0], "test-app", "broken"}, []string{"app-1", "exit status 3", "no such flag: -x"}},
		"a setup that fails":    {[]string{"--replicas", "0", "--port-base", "0", "--setup", "exit 7", "--", "true"}, []string{"setup", "exit status 7"}},
		"a missing application": {[]string{"--replicas", "0", "--port-base", "0", "--", "no-such-program"}, []string{"no-such-program"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			out, err := result(t, append([]string{"up", "--data", dir}, test.args...)...)
			if err == nil {
				t.Fatalf("it started:\n%s", out)
			}
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in:\n%s", want, out)
				}
			}
			nothingLeft(t, dir)
			if out, err := result(t, "down", "--wipe", "--data", dir); err != nil {
				t.Errorf("down --wipe: %v\n%s", err, out)
			}
		})
	}
}
