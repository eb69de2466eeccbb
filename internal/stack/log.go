package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// keptLogs is how many older logs of a service there are: NAME.log.1 is the newest.
const keptLogs = 3

// openLog starts a new log and keeps those before it, or goes on with the one that
// there is. A service that dies again and again in one run must not push out the log
// that says how it began.
func openLog(path string, again bool) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if !again {
		if err := shiftLogs(path); err != nil {
			return nil, err
		}
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	// Appending, so that the file can be cut while it is written.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err == nil && again {
		_, _ = fmt.Fprintf(f, "--- started again at %s\n", time.Now().UTC().Format(time.RFC3339))
	}
	return f, err
}

// shiftLogs makes room for a new NAME.log.1.
func shiftLogs(path string) error {
	for n := keptLogs - 1; n >= 1; n-- {
		err := os.Rename(fmt.Sprintf("%s.%d", path, n), fmt.Sprintf("%s.%d", path, n+1))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// rotateLogs cuts logs that have grown too large, until ctx is done.
func (s *Stack) rotateLogs(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, service := range s.Services() {
			// A disk without room for the copy has none for the log either.
			_ = rotateLog(service.Log, s.cfg.LogMaxBytes)
		}
	}
}

// rotateLog moves what a log holds to NAME.log.1 when it is larger than the limit.
// The process goes on writing to the file that it has open, so it is copied and cut.
// What is written between the last look and the cut, microseconds, is lost: a pipe
// through us instead would end the process when we are killed.
func rotateLog(path string, limit int64) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= limit {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	copied, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".copy*")
	if err != nil {
		return err
	}
	defer os.Remove(copied.Name()) // fails once it is renamed
	defer copied.Close()
	// A writer that is faster than this copy must not keep it from ending.
	for range 10 {
		n, err := io.Copy(copied, io.LimitReader(in, limit+info.Size()))
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	if err := os.Truncate(path, 0); err != nil {
		return err
	}
	if err := copied.Chmod(0o644); err != nil {
		return err
	}
	if err := shiftLogs(path); err != nil {
		return err
	}
	return os.Rename(copied.Name(), path+".1")
}

// tail returns the last lines of a file, or nothing.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 8 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, most))
	all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "\n    " + strings.ReplaceAll(text, "\n", "\n    ")
}
