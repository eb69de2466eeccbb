package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type logsCmd struct {
	dataFlag
	Service string `arg:"" optional:"" help:"Service as status names it; all when left out."`
	Follow  bool   `short:"f" help:"Go on printing what is written."`
	Lines   int    `short:"n" help:"Number of lines to begin with." default:"20"`
}

func (c *logsCmd) Run(ctx context.Context) error {
	paths, err := filepath.Glob(filepath.Join(c.Data, "logs", "*.log"))
	if err != nil {
		return err
	}
	name := func(path string) string { return strings.TrimSuffix(filepath.Base(path), ".log") }
	if c.Service != "" {
		all := paths
		paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return name(path) != c.Service })
		if len(paths) == 0 {
			names := make([]string, len(all))
			for i, path := range all {
				names[i] = name(path)
			}
			return fmt.Errorf("there is no log of %q in %s; there is: %s", c.Service, c.Data, strings.Join(names, ", "))
		}
	}
	if len(paths) == 0 {
		return fmt.Errorf("there are no logs in %s; start a stack with: loadline up", c.Data)
	}
	logs := make([]*logReader, len(paths))
	for i, path := range paths {
		prefix := ""
		if len(paths) > 1 {
			prefix = fmt.Sprintf("%-10s ", name(path))
		}
		log, err := openLog(path, prefix, max(0, c.Lines))
		if err != nil {
			return err
		}
		defer func() { _ = log.file.Close() }()
		logs[i] = log
	}
	for {
		for _, log := range logs {
			if err := log.copyTo(os.Stdout); err != nil {
				return err
			}
		}
		if !c.Follow {
			for _, log := range logs {
				if err := log.flush(os.Stdout); err != nil {
					return err
				}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// logReader prints whole lines of a log that grows.
type logReader struct {
	file    *os.File
	prefix  string
	pending []byte // a line whose end is not written yet
}

func openLog(path, prefix string, lines int) (*logReader, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l := &logReader{file: file, prefix: prefix}
	if err := l.seekLines(lines); err != nil {
		_ = file.Close()
		return nil, err
	}
	return l, nil
}

// seekLines goes to the beginning of the last lines, reading from the end.
func (l *logReader) seekLines(lines int) error {
	at, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if lines == 0 {
		return nil
	}
	size, found := at, 0
	for block := make([]byte, 32<<10); at > 0; {
		n := min(at, int64(len(block)))
		at -= n
		if _, err := l.file.ReadAt(block[:n], at); err != nil {
			return err
		}
		for i := n - 1; i >= 0; i-- {
			if block[i] != '\n' || at+i == size-1 {
				continue
			}
			if found++; found >= lines {
				_, err := l.file.Seek(at+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = l.file.Seek(0, io.SeekStart)
	return err
}

// flush prints a line whose end was never written: a crash's last words, say.
func (l *logReader) flush(out io.Writer) error {
	if len(l.pending) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "%s%s\n", l.prefix, l.pending)
	l.pending = nil
	return err
}

// reopen changes to the log of a new run, which has taken this one's name, and begins
// again with one that was cut.
func (l *logReader) reopen() (bool, error) {
	mine, err := l.file.Stat()
	if err != nil {
		return false, err
	}
	if at, err := l.file.Seek(0, io.SeekCurrent); err != nil || at > mine.Size() {
		_, err = l.file.Seek(0, io.SeekStart)
		return err == nil, err
	}
	current, err := os.Stat(l.file.Name())
	if err != nil || os.SameFile(mine, current) {
		return false, nil // nothing new, or not yet there
	}
	file, err := os.Open(l.file.Name())
	if err != nil {
		return false, err
	}
	_ = l.file.Close()
	l.file = file
	return true, nil
}

func (l *logReader) copyTo(out io.Writer) error {
	block := make([]byte, 32<<10)
	for {
		n, err := l.file.Read(block)
		l.pending = append(l.pending, block[:n]...)
		for {
			line, rest, whole := bytes.Cut(l.pending, []byte("\n"))
			if !whole {
				break
			}
			if _, err := fmt.Fprintf(out, "%s%s\n", l.prefix, line); err != nil {
				return err
			}
			l.pending = rest
		}
		if len(l.pending) > 1<<20 { // no line is as long
			if err := l.flush(out); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			again, err := l.reopen()
			if err != nil || !again {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
	}
}
