package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// A full disk is real only when the file system says so. While it lasts, the server
// works on a small file system in memory:
//
//	DATA.limited   the file system, with a copy of the data
//	DATA           the same, mounted over the data directory
//	DATA.copied    on the way back: a copy that is not complete
//	DATA.restored  on the way back: a complete copy; it counts once nothing is mounted over DATA
//
// Each step can be told from what is there, so that a start after a crash goes on
// where it was cut short.
const (
	limitedSuffix  = ".limited"
	copiedSuffix   = ".copied"
	restoredSuffix = ".restored"
	// ballast is the file that fills it.
	ballast = "loadline-ballast"
)

const (
	// diskSlack is what a server needs to start: PostgreSQL writes a WAL file of 16 MB.
	diskSlack = 64 << 20
	// maxDisk bounds the memory that a file system takes.
	maxDisk = 2 << 30
)

// fillDisk restarts a server on a small file system and fills that. c.busy is held.
func (s *Stack) fillDisk(ctx context.Context, c *child) error {
	if err := canLimitDisk(); err != nil {
		return err
	}
	data := dataDirOf(s.cfg.Dir, c.service.Name)
	size, err := sizeOf(data)
	if err != nil {
		return err
	}
	if size > maxDisk {
		return fmt.Errorf("%w: %s has %d MB, and at most %d are copied into memory", ErrUnsupported, data, size>>20, maxDisk>>20)
	}
	s.stopOrderly(ctx, c)
	if err := limitDisk(ctx, data, size+diskSlack); err != nil {
		return err
	}
	if err := s.startChild(ctx, c); err != nil {
		return err
	}
	s.mu.Lock()
	service := c.service
	s.mu.Unlock()
	if service.isPostgres() {
		// The first session in a database since the start writes a cache, and fails when
		// it cannot. A disk that fills up finds a server that has been used.
		warm, err := pgx.Connect(ctx, appURL(service.Direct))
		if err != nil {
			return err
		}
		closeSoon(warm)
	}
	return fill(ctx, filepath.Join(data, ballast))
}

// emptyDisk restarts the server on the disk, with the data that it has now.
func (s *Stack) emptyDisk(ctx context.Context, c *child) error {
	if err := c.busy.take(ctx); err != nil {
		return err
	}
	defer c.busy.give()
	data := dataDirOf(s.cfg.Dir, c.service.Name)
	// Its shutdown needs room.
	if err := os.Remove(filepath.Join(data, ballast)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ran := s.runs(c)
	if exists(data+limitedSuffix) || exists(data+restoredSuffix) {
		s.stopOrderly(ctx, c)
		if err := restoreDisk(data); err != nil {
			return err
		}
	} else if ran {
		return nil // it never came so far
	}
	if s.holder(c) != nil {
		return nil
	}
	return s.startChild(ctx, c)
}

// limitDisk puts a copy of the data into a file system of a size, over the data.
func limitDisk(ctx context.Context, data string, size int64) error {
	limited := data + limitedSuffix
	if err := os.Mkdir(limited, 0o700); err != nil {
		return err
	}
	if err := mountLimited(limited, size); err != nil {
		return errors.Join(err, os.Remove(limited))
	}
	if err := copyTree(ctx, data, limited); err != nil {
		return err
	}
	return bindMount(limited, data)
}

// restoreDisk copies the data back and takes the file system away. The server does
// not run. It may be called whatever has been done so far.
func restoreDisk(data string) error {
	limited, copied, restored := data+limitedSuffix, data+copiedSuffix, data+restoredSuffix
	if !exists(limited) && !exists(restored) {
		return nil // what else is mounted there is not ours
	}
	if mounted(data) {
		// While it is mounted, what is there is the truth: the server may have written
		// since an earlier copy.
		if err := os.RemoveAll(restored); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(data, ballast)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.RemoveAll(copied); err != nil {
			return err
		}
		if err := os.Mkdir(copied, 0o700); err != nil {
			return err
		}
		// To its end, whoever waits: half of it is worth nothing.
		if err := copyTree(context.Background(), data, copied); err != nil {
			return err
		}
		// It is about to be the only one.
		if err := syncDisk(copied); err != nil {
			return err
		}
		if err := os.Rename(copied, restored); err != nil {
			return err
		}
		if err := unmount(data); err != nil {
			return err
		}
	}
	if exists(restored) {
		if err := os.RemoveAll(data); err != nil {
			return err
		}
		if err := os.Rename(restored, data); err != nil {
			return err
		}
	}
	if mounted(limited) {
		if err := unmount(limited); err != nil {
			return err
		}
	}
	// A copy that was cut short is of something that is still there.
	return errors.Join(os.RemoveAll(limited), os.RemoveAll(copied))
}

// fill writes a file until there is no room for more.
func fill(ctx context.Context, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// Ever smaller blocks, so that the last bytes are taken, too.
	for block := make([]byte, 1<<20); len(block) > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch _, err := f.Write(block); {
		case errors.Is(err, syscall.ENOSPC):
			block = block[:len(block)/2]
		case err != nil:
			return err
		}
	}
	return nil
}

func sizeOf(dir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server has deleted it meanwhile
		}
		if err != nil {
			return err
		}
		if info, err := entry.Info(); err == nil {
			size += (info.Size() + 4095) &^ 4095
		}
		return nil
	})
	return size, err
}

// copyTree copies what is in a directory, with owners and modes, into another. It is no
// program of its own: one would go on when we are killed, and meet the next start.
func copyTree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return copyEntry(path, filepath.Join(to, relative), info)
	})
}

func copyEntry(from, to string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
	case info.Mode().IsRegular():
		if err := copyFile(from, to); err != nil {
			return err
		}
	case info.Mode().Type() == fs.ModeSymlink: // of a tablespace
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	default:
		return nil // a socket, which the server makes anew
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Lchown(to, int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(to, info.Mode().Perm())
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func syncDisk(dir string) error {
	if out, err := exec.Command("sync", "-f", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("sync %s: %w%s", dir, err, indent(string(out)))
	}
	return nil
}

// discardDisk takes the file system away with what is on it.
func discardDisk(data string) error {
	for _, dir := range []string{data, data + limitedSuffix} {
		if exists(data+limitedSuffix) && mounted(dir) {
			if err := unmount(dir); err != nil {
				return err
			}
		}
	}
	var errs []error
	for _, suffix := range []string{limitedSuffix, copiedSuffix, restoredSuffix} {
		errs = append(errs, os.RemoveAll(data+suffix))
	}
	return errors.Join(errs...)
}

// mounted reports whether a directory is another file system than its parent.
func mounted(dir string) bool {
	var own, parent syscall.Stat_t
	return syscall.Stat(dir, &own) == nil && syscall.Stat(filepath.Dir(dir), &parent) == nil && own.Dev != parent.Dev
}
