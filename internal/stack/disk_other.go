//go:build !linux

package stack

import "fmt"

func canLimitDisk() error {
	return fmt.Errorf("%w: a file system of limited size is made on Linux alone", ErrUnsupported)
}

func mountLimited(string, int64) error { return canLimitDisk() }
func bindMount(string, string) error   { return canLimitDisk() }
func unmount(string) error             { return canLimitDisk() }
