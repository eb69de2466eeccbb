package contract_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit/contract"
	"github.com/loadlinehq/loadline/internal/stack"
)

// TestUp starts what `make up` starts and holds it to the contract, over both instances, so that what one writes the other shows at
// once: while the replicas are behind, which no client may notice, though what others did may come a moment later to
// who is not told what has happened; and while Redis goes, and comes back. With LOADLINE_SLOW they are five seconds behind and not two, and each is done 50 times in a row, and before
// nothing is behind; once over the one address that users have, and ten times by those who are told, behind.
func TestUp(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	// The limit is above the lag that they get: they have to compare positions.
	slow := os.Getenv("LOADLINE_SLOW") != ""
	lag, lagLimit := 2*time.Second, 3*time.Second
	if slow {
		lag, lagLimit = 5*time.Second, 7*time.Second
	}
	up := startUp(t, lagLimit)
	target := contract.Target{JWTSecret: up.secret(t)}
	for _, s := range up.Services {
		if s.Role == "app" {
			target.URLs = append(target.URLs, "http://"+s.Addr)
		}
	}
	if len(target.URLs) != 2 {
		t.Fatalf("there are %d instances, want 2", len(target.URLs))
	}
	runs := 1
	if slow {
		runs = 50
		for i := range runs {
			if !t.Run(fmt.Sprintf("instances/%d", i+1), func(t *testing.T) { contract.Run(t, target) }) {
				break
			}
		}
	}
	// Of a Redis that is new, nobody knows what it has lost: until twice the lag limit
	// has passed, users read the primary.
	time.Sleep(time.Until(up.started.Add(2*lagLimit + time.Second)))
	before := up.scans(t)
	if slow && !t.Run("address", func(t *testing.T) {
		contract.Run(t, contract.Target{URLs: []string{up.App.URL}, JWTSecret: target.JWTSecret})
	}) {
		return
	}
	for _, replica := range []string{"replica-1", "replica-2"} {
		up.loadline(t, "fault", "add", replica, "lag", "--delay", lag.String())
	}
	for i := range runs / 5 {
		if !t.Run(fmt.Sprintf("behind/%d", i+1), func(t *testing.T) { contract.Run(t, target) }) {
			break
		}
	}
	untold := target
	untold.Untold = true
	for i := range runs {
		if !t.Run(fmt.Sprintf("untold/%d", i+1), func(t *testing.T) { contract.Run(t, untold) }) {
			break
		}
	}
	after := up.scans(t)
	t.Logf("scans: %d on replicas, %d on the primary", after.replicas-before.replicas, after.primary-before.primary)
	if after.replicas-before.replicas < 50 {
		t.Errorf("replicas were asked for %d scans, hardly any", after.replicas-before.replicas)
	}
	for i := range runs {
		if !t.Run(fmt.Sprintf("redis/%d", i+1), func(t *testing.T) {
			done := make(chan struct{})
			var away sync.WaitGroup
			away.Go(func() { defer close(done); up.withoutRedis(t) })
			target := target
			if !slow { // over the one address that users have, which is not done otherwise
				target.URLs = []string{up.App.URL}
			}
			for again := true; again; { // until it was away, and back
				again = t.Run("contract", func(t *testing.T) { contract.Run(t, target) })
				select {
				case <-done:
					again = false
				default:
				}
			}
			away.Wait()
		}) {
			break
		}
	}
}

// withoutRedis kills Redis in the middle of what is going on, and starts it again.
func (u *runningUp) withoutRedis(t *testing.T) {
	for _, step := range []struct {
		after time.Duration
		args  []string
	}{{time.Second, []string{"fault", "add", "redis", "kill"}}, {2 * time.Second, []string{"fault", "clear", "redis"}}} {
		time.Sleep(step.after)
		cmd := exec.Command(filepath.Join(u.bin, "loadline"), append(step.args, "--data", u.dir)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("loadline %v: %v\n%s", step.args, err, out)
		}
	}
}

// manyRequests is what tests and load make from one machine: more than a developer does.
const manyRequests = "CONDUIT_LOOPBACK_RATE_LIMIT=10000000"

// scans are those of the application's tables. Polls make none; writes on the primary
// do.
type scans struct{ primary, replicas int64 }

func (u *runningUp) scans(t *testing.T) (n scans) {
	t.Helper()
	time.Sleep(1100 * time.Millisecond) // sessions report what they did once a second
	for _, s := range u.Services {
		if s.Role != "primary" && s.Role != "replica" {
			continue
		}
		conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s@%s/app", stack.AppRole, s.Addr))
		if err != nil {
			t.Fatal(err)
		}
		var scanned int64
		err = conn.QueryRow(t.Context(), "SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_user_tables").Scan(&scanned)
		_ = conn.Close(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Role == "primary" {
			n.primary += scanned
		} else {
			n.replicas += scanned
		}
	}
	return n
}

// runningUp is a loadline up, by its ready file.
type runningUp struct {
	bin, dir string
	started  time.Time

	App      struct{ URL string }
	Services []struct{ Name, Role, Addr string }
}

func (u *runningUp) loadline(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(u.bin, "loadline"), append(args, "--data", u.dir)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("loadline %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (u *runningUp) secret(t *testing.T) string {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(u.dir, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	return string(secret)
}

func startUp(t *testing.T, lagLimit time.Duration) *runningUp {
	t.Helper()
	bin := t.TempDir()
	for program, module := range map[string]string{"loadline": "../../..", "conduit": ".."} {
		build := exec.Command("go", "build", "-o", filepath.Join(bin, program), "./cmd/"+program)
		build.Dir = module
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	up := &runningUp{bin: bin, dir: filepath.Join(t.TempDir(), "stack")}
	ready := filepath.Join(t.TempDir(), "ready.json")
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "loadline"), "up", "--data", up.dir, "--port-base", "0", "--ready-file", ready)
	cmd.Stdout, cmd.Stderr = &out, &out
	t.Log(manyRequests)
	cmd.Env = append(os.Environ(), "CONDUIT_LAG_LIMIT="+lagLimit.String(), manyRequests)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("up: %v\n%s", err, &out)
			}
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Error("up does not end")
		}
		if t.Failed() {
			for _, name := range []string{"app-1", "app-2"} {
				log, _ := os.ReadFile(filepath.Join(up.dir, "logs", name+".log"))
				lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(log)), "\n"), func(line string) bool {
					return strings.Contains(line, `"level":"INFO"`)
				})
				t.Logf("warnings and errors of %s, the last:\n%s", name, strings.Join(lines[max(0, len(lines)-20):], "\n"))
			}
		}
		wipe := exec.Command(filepath.Join(bin, "loadline"), "down", "--wipe", "--data", up.dir)
		if out, err := wipe.CombinedOutput(); err != nil {
			t.Errorf("down --wipe: %v\n%s", err, out)
		}
	})
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		data, err := os.ReadFile(ready)
		if err == nil {
			if err := json.Unmarshal(data, up); err != nil {
				t.Fatal(err)
			}
			up.started = time.Now()
			return up
		}
		select {
		case err := <-ended:
			ended <- errors.New("it ended before")
			t.Fatalf("up: %v\n%s", err, &out)
		default:
		}
		if time.Now().After(limit) {
			t.Fatal("up is not ready after two minutes")
		}
	}
}
