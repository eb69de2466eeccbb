package stack

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrDiskFull is returned when there is no room for the stack's data.
var ErrDiskFull = errors.New("the disk is full")

// Measured with `du`: a new PostgreSQL server takes 40 MB and writes WAL in files of 16.
const (
	roomForServer = 100 << 20
	roomToRun     = 64 << 20
)

// checkRoom says that the disk is full before something fails of it half-way.
func checkRoom(cfg Config) error {
	need := uint64(roomToRun)
	dir := cfg.Dir
	for n := range cfg.Replicas + 1 {
		name := "primary"
		if n > 0 {
			name = replicaName(n)
		}
		if data := dataDirOf(cfg.Dir, name); !exists(filepath.Join(data, "PG_VERSION")) {
			need += roomForServer
		} else if !strings.HasPrefix(data, cfg.Dir) {
			dir = filepath.Dir(data)
		}
	}
	if free, err := freeBytes(dir); err == nil && free < need {
		return fmt.Errorf("stack: %w: %d MB are free in %s, and %d MB are needed; make room, or choose another data directory with --data",
			ErrDiskFull, free>>20, dir, need>>20)
	}
	return nil
}

func freeBytes(dir string) (uint64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return stat.Bavail * uint64(stat.Bsize), nil
}

// explainFull adds to an error of a server or of ours what its cause is, when the disk
// was full.
func explainFull(dir string, err error) error {
	if errors.Is(err, ErrDiskFull) || !errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "No space left on device") {
		return err
	}
	return fmt.Errorf("stack: %w; make room in %s, or choose another data directory with --data: %w", ErrDiskFull, dir, err)
}
