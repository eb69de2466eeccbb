package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// canLimitDisk says why the size of a server's disk cannot be limited here. Whether
// root may mount, which in many containers it may not, shows when it is tried.
func canLimitDisk() error {
	dir, err := os.MkdirTemp("", "loadline-mount-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := mountLimited(dir, 1<<20); err != nil {
		return fmt.Errorf("%w: a file system of limited size needs the right to mount (CAP_SYS_ADMIN, root has it): %w", ErrUnsupported, err)
	}
	return unmount(dir)
}

func mountLimited(dir string, size int64) error {
	if err := syscall.Mount("loadline", dir, "tmpfs", syscall.MS_NODEV|syscall.MS_NOSUID, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		return fmt.Errorf("mount %s: %w", filepath.Base(dir), err)
	}
	return nil
}

func bindMount(from, to string) error {
	if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", filepath.Base(to), err)
	}
	return nil
}

// unmount waits a moment for whoever still has a file open there.
func unmount(dir string) error {
	var err error
	for range 50 {
		if err = syscall.Unmount(dir, 0); err != syscall.EBUSY {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
