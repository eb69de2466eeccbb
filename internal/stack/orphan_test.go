package stack

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A server that an earlier run had begun to start, and that nobody knows of, is ended
// before one is started in its place.
func TestUnknownServerIsEnded(t *testing.T) {
	t.Parallel()
	if !exists("/proc/self/stat") {
		t.Skip("there is no /proc to find it by")
	}
	dir := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	// By the name that it is found by.
	program := filepath.Join(t.TempDir(), "postgres")
	data, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "60")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := endServersIn(t.Context(), dir); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("it runs on")
	}
}
