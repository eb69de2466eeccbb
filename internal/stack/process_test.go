package stack

import (
	"os"
	"testing"
)

func TestStartID(t *testing.T) {
	t.Parallel()
	if id := startID(os.Getpid()); id == "" || id != startID(os.Getpid()) {
		t.Error("this process has no lasting identity")
	}
	if id := startID(1 << 30); id != "" {
		t.Errorf("no process has identity %q", id)
	}
}
