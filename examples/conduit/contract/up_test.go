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
	"syscall"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit/contract"
)

// TestUp starts what `make up` starts and holds it to the contract: over both
// instances, so that what one writes the other shows at once, and over the one
// address that users have. With LOADLINE_SLOW it does so 50 times in a row.
func TestUp(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	up := startUp(t)
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
	if os.Getenv("LOADLINE_SLOW") != "" {
		runs = 50
	}
	for i := range runs {
		if !t.Run(fmt.Sprintf("instances/%d", i+1), func(t *testing.T) { contract.Run(t, target) }) {
			break
		}
	}
	t.Run("address", func(t *testing.T) {
		contract.Run(t, contract.Target{URLs: []string{up.App.URL}, JWTSecret: target.JWTSecret})
	})
}

// runningUp is a loadline up, by its ready file.
type runningUp struct {
	dir string

	App      struct{ URL string }
	Services []struct{ Name, Role, Addr string }
}

func (u *runningUp) secret(t *testing.T) string {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(u.dir, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	return string(secret)
}

func startUp(t *testing.T) *runningUp {
	t.Helper()
	bin := t.TempDir()
	for program, module := range map[string]string{"loadline": "../../..", "conduit": ".."} {
		build := exec.Command("go", "build", "-o", filepath.Join(bin, program), "./cmd/"+program)
		build.Dir = module
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	up := &runningUp{dir: filepath.Join(t.TempDir(), "stack")}
	ready := filepath.Join(t.TempDir(), "ready.json")
	var out bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "loadline"), "up", "--data", up.dir, "--port-base", "0", "--ready-file", ready)
	cmd.Stdout, cmd.Stderr = &out, &out
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
