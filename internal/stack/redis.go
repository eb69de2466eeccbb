package stack

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func startRedis(ctx context.Context, launch launcher, dir string, port int) error {
	program, err := FindRedis()
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "redis")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	p, err := launch(processSpec{
		argv: []string{
			program, "--bind", "127.0.0.1", "--port", strconv.Itoa(port + behindProxy), "--dir", data, "--appendonly", "yes",
			"--save", "", // the log of commands is enough; a snapshot would fork beside it
			// Where it says where it is, it names its proxy.
			"--replica-announce-ip", "127.0.0.1", "--replica-announce-port", strconv.Itoa(port),
		},
		dir: data, stopSignal: syscall.SIGTERM,
	})
	if err != nil {
		return err
	}
	// Redis answers LOADING while it reads its data, and listens all the while.
	return await(ctx, p, 30*time.Second, func(ctx context.Context) error {
		return converse(ctx, loopback(port+behindProxy), "PING\r\n", "+PONG")
	})
}
