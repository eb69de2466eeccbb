package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestLogReader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app-1.log")
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write("one\ntwo\nthr")
	log, err := openLog(path, "app-1 ", 2)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.file.Close() }()
	expect := func(step, want string) {
		t.Helper()
		var out bytes.Buffer
		if err := log.copyTo(&out); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%s: got %q, want %q", step, out.String(), want)
		}
	}
	expect("whole lines alone", "app-1 two\n")
	write("ee\n")
	expect("a line in two parts", "app-1 three\n")
	// A new run takes the name.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("new run\npanic: last words")
	expect("the log of a new run", "app-1 new run\n")
	var out bytes.Buffer
	if err := log.flush(&out); err != nil || out.String() != "app-1 panic: last words\n" {
		t.Errorf("the unfinished line: %q, %v", out.String(), err)
	}
}

func TestLogReaderBegins(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("one\ntwo\nthree\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[int]string{0: "", 1: "three\n", 2: "two\nthree\n", 99: "one\ntwo\nthree\n"} {
		log, err := openLog(path, "", lines)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := log.copyTo(&out); err != nil || out.String() != want {
			t.Errorf("with %d lines: %q, %v; want %q", lines, out.String(), err, want)
		}
		_ = log.file.Close()
	}
}
