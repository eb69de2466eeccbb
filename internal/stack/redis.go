package stack

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func startRedis(ctx context.Context, dir string, port int) (*process, error) {
	program, err := FindRedis()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "redis")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, err
	}
	p, err := startProcess(processSpec{
		name: "redis",
		argv: []string{
			program, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", data, "--appendonly", "yes",
			"--save", "", // the log of commands is enough; a snapshot would fork beside it
		},
		dir: data, log: filepath.Join(dir, "logs", "redis.log"), stopSignal: syscall.SIGTERM,
	})
	if err != nil {
		return nil, err
	}
	// Redis answers LOADING while it reads its data, and listens all the while.
	if err := await(ctx, p, 30*time.Second, func(ctx context.Context) error {
		return converse(ctx, loopback(port), "PING\r\n", "+PONG")
	}); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}
