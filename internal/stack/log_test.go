package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// The logs of the runs before are kept beside the new one, and a restart in the same
// run goes on with its log.
func TestOpenLogKeepsTheLast(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "logs", "redis.log")
	for _, run := range []string{"first", "second", "third", "fourth", "fifth"} {
		for _, again := range []bool{false, true} {
			f, err := openLog(path, again)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(f, "%s again %t\n", run, again)
			_ = f.Close()
		}
	}
	for name, want := range map[string]string{"": "fifth", ".1": "fourth", ".2": "third", ".3": "second"} {
		text, err := os.ReadFile(path + name)
		if err != nil || !strings.HasPrefix(string(text), want+" again false\n--- started again at") || !strings.Contains(string(text), want+" again true\n") {
			t.Errorf("redis.log%s has %q, %v; want both of the %s run", name, text, err, want)
		}
	}
	if exists(path + ".4") {
		t.Error("there is a fourth older log")
	}
}

// A log that is written all the while is cut, bounded, and loses no more than a few
// lines.
func TestRotateLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app-1.log")
	log, err := openLog(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	const lines, limit = 100_000, 16 << 10
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := range lines {
			fmt.Fprintf(log, "line %06d\n", n)
		}
	})
	done := make(chan struct{})
	go func() {
		writer.Wait()
		close(done)
	}()
	rotations := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		before, _ := os.Stat(path)
		if err := rotateLog(path, limit); err != nil {
			t.Fatal(err)
		}
		if before.Size() > limit {
			rotations++
		}
	}
	if rotations < 2 {
		t.Fatalf("%d rotations; the test shows nothing", rotations)
	}
	kept := ""
	for _, name := range []string{".3", ".2", ".1", ""} {
		text, err := os.ReadFile(path + name)
		if err != nil && (rotations >= 3 || name == "") {
			t.Fatal(err)
		}
		kept += string(text)
	}
	if exists(path + ".4") {
		t.Error("more than three older logs are kept")
	}
	last, missing := -1, 0
	for line := range strings.Lines(kept) {
		var n int
		if _, err := fmt.Sscanf(line, "line %d\n", &n); err != nil {
			continue // cut in two by a rotation
		}
		if last >= 0 && n > last+1 {
			missing += n - last - 1
		}
		if n <= last {
			t.Fatalf("line %d comes after line %d", n, last)
		}
		last = n
	}
	missing += lines - 1 - last // the last may be what a cut has lost
	if missing > lines/100 {
		t.Errorf("%d of %d lines are missing", missing, lines)
	}
}
