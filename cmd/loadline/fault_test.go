package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/internal/stack"
)

// The faults of a running stack, as a user adds, sees and undoes them.
func TestFaultCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	dir := t.TempDir()
	r := up(t, dir, "--replicas", "1", "--instances", "1", "--", os.Args[0], "test-app")
	ready := r.waitReady()
	run := func(want string, args ...string) string {
		t.Helper()
		out, err := result(t, append(args, "--data", dir)...)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("loadline %s: %v; want %q in\n%s", strings.Join(args, " "), err, want, out)
		}
		return out
	}
	refuse := func(want string, args ...string) {
		t.Helper()
		out, err := result(t, append(args, "--data", dir)...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("loadline %s: %v; want an error that says %q in\n%s", strings.Join(args, " "), err, want, out)
		}
	}

	run("No faults", "fault", "list")
	run("No faults", "fault", "clear")
	run("redis latency --delay 50ms --for 10m0s", "fault", "add", "redis", "latency", "--delay", "50ms", "--for", "10m")
	run("to undo it", "fault", "add", "replica-1", "lag", "--delay", "5s")
	run("bandwidth --rate 64000", "fault", "add", "app-1", "bandwidth", "--rate", "64kB")
	run("Done: nats restart", "fault", "add", "nats", "restart")
	r.waitPrinted(5*time.Second, "FAULT replica-1 lag --delay 5s")

	refuse("there is no kind", "fault", "add", "redis", "explode")
	refuse("redis, nats, app-1", "fault", "add", "nobody", "kill")
	refuse("latency needs --delay", "fault", "add", "redis", "latency")
	refuse("is not a number of bytes", "fault", "add", "redis", "bandwidth", "--rate", "fast")
	refuse("has latency already", "fault", "add", "redis", "latency", "--delay", "1s")
	refuse("no fault has the id 77", "fault", "clear", "77")

	if out := run("recovery_min_apply_delay", "fault", "list"); !strings.Contains(out, "in 9m") || !strings.Contains(out, "when cleared") {
		t.Errorf("the list does not say when they end:\n%s", out)
	}
	var listed []stack.ActiveFault
	if err := json.Unmarshal([]byte(run("", "fault", "list", "--json")), &listed); err != nil || len(listed) != 3 || listed[1].Delay != 5*time.Second {
		t.Errorf("fault list --json: %+v, %v", listed, err)
	}
	run("replica-1 lag", "status")
	run("Undone: redis latency", "fault", "clear", listed[0].ID)
	run("Undone: app-1 bandwidth", "fault", "clear", "app-1")
	run("Undone: replica-1 lag", "fault", "clear")
	r.waitPrinted(5*time.Second, "FAULT replica-1 lag --delay 5s: undone")
	run("No faults", "fault", "list")

	t.Run("page", func(t *testing.T) {
		ask := func(method, path, body string, header ...string) int {
			t.Helper()
			request, err := http.NewRequestWithContext(t.Context(), method, ready.Admin.URL+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(header); i += 2 {
				request.Header.Set(header[i], header[i+1])
				if header[i] == "Host" {
					request.Host = header[i+1]
				}
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			_, _ = io.Copy(io.Discard, response.Body)
			return response.StatusCode
		}
		const latency = `{"service": "redis", "kind": "latency", "delay": "50ms"}`
		for _, test := range []struct {
			what         string
			want         int
			method, path string
			body         string
			header       []string
		}{
			{"a page of another origin", 403, "POST", "/faults", latency, []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://elsewhere.example"}},
			{"a name that points here", 403, "POST", "/faults", latency, []string{"Host", "elsewhere.example"}},
			{"a name that points here, reading", 403, "GET", "/status.json", "", []string{"Host", "elsewhere.example:80"}},
			{"no JSON", 400, "POST", "/faults", "service=redis", nil},
			{"a bad fault", 400, "POST", "/faults", `{"service": "redis", "kind": "latency"}`, nil},
			{"no such service", 404, "POST", "/faults", `{"service": "nobody", "kind": "kill"}`, nil},
			{"its own page", 201, "POST", "/faults", latency, []string{"Sec-Fetch-Site", "same-origin", "Origin", ready.Admin.URL}},
			{"the same again", 409, "POST", "/faults", latency, nil},
			{"all", 204, "DELETE", "/faults", "", nil},
			{"none", 404, "DELETE", "/faults/1", "", nil},
		} {
			if got := ask(test.method, test.path, test.body, test.header...); got != test.want {
				t.Errorf("%s: got %d, want %d", test.what, got, test.want)
			}
		}
	})
	if out, err := result(t, "fault", "list", "--data", t.TempDir()); err == nil || !strings.Contains(out, "no stack is running") {
		t.Errorf("without a stack: %v\n%s", err, out)
	}
}

// killedFault is a fault in the middle of which the command is killed.
type killedFault struct {
	args []string
	slow bool // several seconds until it is in force
}

var killedFaults = []killedFault{
	{args: []string{"redis", "kill"}},
	{args: []string{"primary", "kill"}},
	{args: []string{"replica-1", "pause"}},
	{args: []string{"primary", "restart"}},
	{args: []string{"redis", "latency", "--delay", "50ms"}},
	{args: []string{"nats", "bandwidth", "--rate", "1kB"}},
	{args: []string{"primary", "stall"}},
	{args: []string{"app-1", "cut", "--direction", "to-client"}},
	{args: []string{"redis", "reset"}},
	{args: []string{"nats", "refuse"}},
	{args: []string{"replica-1", "lag", "--delay", "1h"}},
	{args: []string{"replica-2", "replay-pause"}},
	{args: []string{"replica-2", "stream-cut"}},
	{args: []string{"primary", "exhaust"}},
	{args: []string{"replica-1", "promote"}, slow: true},
	{args: []string{"redis", "disk-full"}, slow: true},
	{args: []string{"primary", "disk-full"}, slow: true},
}

// The command is killed while it adds faults, while they are active, or while it
// undoes them; whatever it was, the next start is clean and has all data. Every kind
// at every point takes minutes, and is done with LOADLINE_SLOW.
func TestKillDuringFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	dir := t.TempDir()
	app := []string{"--replicas", "2", "--instances", "1", "--", os.Args[0], "test-app"}
	rows := 0
	write := func(ready readyFile) {
		t.Helper()
		rows++
		execute(t, ready, fmt.Sprintf("INSERT INTO note VALUES (%d)", rows))
	}
	r := up(t, dir, app...)
	ready := r.waitReady()
	execute(t, ready, "CREATE TABLE note (n int)")

	// round adds the faults, kills the command at a moment of the last one's life, and
	// starts it again.
	round := func(what string, faults []killedFault, kill func(last killedFault)) {
		t.Helper()
		write(ready)
		for _, f := range faults[:len(faults)-1] {
			if out, err := result(t, append([]string{"fault", "add", "--data", dir}, f.args...)...); err != nil {
				if strings.Contains(out, "not supported here") {
					t.Log(out)
					continue
				}
				t.Fatalf("%s: %v: %v\n%s", what, f.args, err, out)
			}
		}
		kill(faults[len(faults)-1])
		_ = r.cmd.Process.Kill()
		r.waitEnd(5 * time.Second)
		r = up(t, dir, app...)
		ready = r.waitReady()
		if !isClean(t, dir, ready, rows) {
			t.Fatalf("after %s", what)
		}
	}
	wait := func(command string, f killedFault) {
		t.Helper()
		limit := 200 * time.Millisecond
		if f.slow {
			limit = 2 * time.Second
		}
		cmd := loadline(t.Context(), append([]string{"fault", command, "--data", dir}, f.args...)...)
		if command == "clear" {
			cmd = loadline(t.Context(), "fault", command, "--data", dir)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(limit)) // anywhere
		t.Cleanup(func() { _ = cmd.Wait() })
	}
	add := func(f killedFault) {
		t.Helper()
		out, err := result(t, append([]string{"fault", "add", "--data", dir}, f.args...)...)
		if err != nil && !strings.Contains(out, "not supported here") {
			t.Fatalf("%v: %v\n%s", f.args, err, out)
		}
	}
	find := func(args string) killedFault {
		for _, f := range killedFaults {
			if strings.Join(f.args, " ") == args {
				return f
			}
		}
		t.Fatalf("no fault %s", args)
		return killedFault{}
	}
	if os.Getenv("LOADLINE_SLOW") == "" {
		many := []killedFault{
			find("redis disk-full"), find("primary exhaust"), find("replica-2 replay-pause"), find("app-1 cut --direction to-client"), find("nats refuse"),
			find("replica-1 promote"),
		}
		round("many faults are active, and a promotion has begun", many, func(f killedFault) { wait("add", f) })
		return
	}
	for _, f := range killedFaults {
		args, what := f.args, strings.Join(f.args, " ")
		for _, point := range []struct {
			what string
			kill func(killedFault)
		}{
			{"is being added", func(f killedFault) { wait("add", f) }},
			{"is active", add},
			{"is being undone", func(f killedFault) { add(f); wait("clear", f) }},
		} {
			f.args = roles(args, ready)
			round(what+" "+point.what, []killedFault{f}, point.kill)
		}
	}
}

// roles has a fault that needs a replica act on one: a promotion changes which is.
func roles(args []string, ready readyFile) []string {
	for _, s := range ready.Services {
		if s.Name == args[0] && s.Role == "primary" && strings.HasPrefix(s.Name, "replica") {
			return append([]string{"primary"}, args[1:]...)
		}
		if s.Name == args[0] && s.Role == "replica" && s.Name == "primary" && args[1] == "exhaust" {
			return append([]string{"replica-1"}, args[1:]...)
		}
	}
	return args
}

// isClean reports whether a stack that has just started shows nothing of earlier faults.
func isClean(t *testing.T, dir string, ready readyFile, rows int) bool {
	t.Helper()
	clean := true
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf(format, args...)
		clean = false
	}
	if out, err := result(t, "fault", "list", "--data", dir); err != nil || !strings.Contains(out, "No faults") {
		fail("fault list: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "faults.json")); err == nil {
		fail("the record of faults is still there")
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err == nil && strings.Contains(string(mounts), dir) {
		fail("something is mounted below %s:\n%s", dir, mounts)
	}
	for _, s := range ready.Services {
		if s.Role != "primary" && s.Role != "replica" {
			continue
		}
		conn, err := pgx.Connect(t.Context(), stack.SuperuserURL(s.Addr))
		if err != nil {
			fail("%s: %v", s.Name, err)
			continue
		}
		var recovers bool
		var delay, paused string
		var found int
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			err = conn.QueryRow(t.Context(), `SELECT pg_is_in_recovery(), current_setting('recovery_min_apply_delay'),
				CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() ELSE 'not paused' END`).Scan(&recovers, &delay, &paused)
			if err == nil {
				err = query(t, s.Addr, &found)
			}
			if err != nil || found == rows || time.Now().After(limit) {
				break
			}
		}
		if err != nil || recovers != (s.Role == "replica") || delay != "0" || paused != "not paused" || found != rows {
			fail("%s (%s): in recovery %t, delay %s, replay %s, %d of %d rows, %v", s.Name, s.Role, recovers, delay, paused, found, rows, err)
		}
		_ = conn.Close(t.Context())
	}
	return clean
}

func query(t *testing.T, addr string, count *int) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), "postgres://app@"+addr+"/app?sslmode=disable")
	if err != nil {
		return err
	}
	defer conn.Close(t.Context())
	return conn.QueryRow(t.Context(), "SELECT count(*) FROM note").Scan(count)
}
