package stack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	for _, test := range []struct {
		text string
		want string
	}{
		{"", ""},
		{"one\n", "one"},
		{"one\ntwo\nthree\n", "two\nthree"},
		{strings.Repeat("x", 20_000) + "\ntwo\nthree", "two\nthree"},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := tail(path, 2); got != test.want {
			t.Errorf("of %d bytes got %q, want %q", len(test.text), got, test.want)
		}
	}
	if got := tail(path+".none", 2); got != "" {
		t.Errorf("of no file got %q", got)
	}
}

func TestStartID(t *testing.T) {
	t.Parallel()
	if id := startID(os.Getpid()); id == "" || id != startID(os.Getpid()) {
		t.Error("this process has no lasting identity")
	}
	if id := startID(1 << 30); id != "" {
		t.Errorf("no process has identity %q", id)
	}
}

// The log of the run before is kept beside the new one.
func TestOpenLogKeepsTheLast(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "logs", "redis.log")
	for _, text := range []string{"first", "second"} {
		f, err := openLog(path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.WriteString(text)
		_ = f.Close()
	}
	if old, new := tail(path+".1", 1), tail(path, 1); old != "first" || new != "second" {
		t.Errorf("got %q and %q", old, new)
	}
}
