package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// account is the user that PostgreSQL runs as when we are root, as whom it
// refuses to run. A nil account is the user that we are.
type account struct {
	name     string
	uid, gid uint32
}

// postgresAccount returns nil unless we are root.
func postgresAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, errors.New("running as root, PostgreSQL needs a user to run as, and there is no user postgres; create it, or run as a normal user")
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user postgres: %w", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user postgres: %w", err)
	}
	return &account{name: u.Username, uid: uint32(uid), gid: uint32(gid)}, nil
}

func (a *account) attr() *syscall.SysProcAttr {
	if a == nil {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
}

// run runs a program to its end and returns an error with its output.
func (a *account) run(ctx context.Context, dir string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = a.attr()
	cmd.SysProcAttr.Setpgid = true // a Ctrl-C in the terminal is for us; it arrives by ctx
	cmd.Env = append(withoutPostgres(os.Environ()), "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second // a grandchild may hold the output open
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%s: %w%s", filepath.Base(argv[0]), err, indent(string(out)))
	}
	return nil
}

// home makes the first of the directories that the account can reach, and gives it
// to the account. Below a home directory closed to others (root's own, say) it can
// reach none, whatever the directory's own mode.
func (a *account) home(ctx context.Context, homes []string) (string, error) {
	if a == nil {
		return homes[0], os.MkdirAll(homes[0], 0o755)
	}
	for _, dir := range homes {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		if err := os.Chown(dir, int(a.uid), int(a.gid)); err != nil {
			return "", err
		}
		if a.run(ctx, dir, "true") == nil { // enters the directory as that user
			return dir, nil
		}
	}
	return "", fmt.Errorf("user %s can enter none of %v", a.name, homes)
}
