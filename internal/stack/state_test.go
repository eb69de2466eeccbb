package stack

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A directory that is not a stack's is neither used nor emptied.
func TestForeignDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mine := filepath.Join(dir, "logs")
	if err := os.Mkdir(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	_, openErr := Open(t.Context(), Config{Dir: dir, PortBase: AnyPortBase, NATSCommand: []string{"nobody"}})
	_, cleanErr := CleanUp(dir)
	for what, err := range map[string]error{"Open": openErr, "CleanUp": cleanErr, "Wipe": Wipe(dir)} {
		if err == nil || !strings.Contains(err.Error(), "not of a stack") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v; want it untouched", entries, err)
	}
}

func TestNewerDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, formatFile), []byte("99\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Wipe(dir); err == nil || !strings.Contains(err.Error(), "newer loadline") {
		t.Errorf("got %v", err)
	}
}

// A directory has one name before and after it is made, through a link or not.
func TestResolve(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(parent, link); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(link, "a", "b")
	before, err := resolve(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	after, err := resolve(dir)
	if err != nil || before != after {
		t.Errorf("before %s, after %s, %v", before, after, err)
	}
}

func TestNoDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	if ended, err := CleanUp(dir); err != nil || len(ended) != 0 {
		t.Errorf("CleanUp: %v, %v", ended, err)
	}
	if err := Wipe(dir); err != nil {
		t.Errorf("Wipe: %v", err)
	}
	if _, err := ReadState(dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("ReadState: %v", err)
	}
	if exists(dir) {
		t.Error("the directory was made")
	}
}

// Several may wipe a directory at the same time: that it is gone is what they want.
func TestWipedByOthers(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	for range 200 {
		lock, err := prepareDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		_ = lock.Close()
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				if err := Wipe(dir); err != nil && !errors.Is(err, ErrRunning) {
					t.Error(err)
				}
			})
		}
		wait.Wait()
	}
}
