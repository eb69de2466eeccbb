package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// RunNATS runs a NATS server with JetStream until ctx is done, then shuts it down
// in order. Clients are told that it is at the address to advertise, so that none
// learns of the one behind the proxy. It is what the child process runs: the server is a Go module, so no
// program has to be installed for it, and as a process of its own it can be
// paused and killed like the others.
func RunNATS(ctx context.Context, dir string, port int, advertise string) error {
	s, err := server.NewServer(&server.Options{
		ServerName:      "loadline",
		Host:            "127.0.0.1",
		Port:            port,
		ClientAdvertise: advertise,
		JetStream:       true,
		StoreDir:        dir,
		NoSigs:          true, // ctx carries the signals
		LogtimeUTC:      true,
	})
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	s.ConfigureLogger()
	go s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		return errors.New("nats: not ready after 30 s")
	}
	stopped := make(chan struct{})
	go func() {
		s.WaitForShutdown()
		close(stopped)
	}()
	select {
	case <-stopped:
		return errors.New("nats: the server ended by itself")
	case <-ctx.Done():
		s.Shutdown()
		<-stopped
		return nil
	}
}

// ServeNATS is for programs that are their own [Config.NATSCommand], as tests are:
// {os.Args[0], "nats-server"}. It reports false, at once, when the program is not run as
// that; otherwise it runs the server until it is asked to end.
func ServeNATS() bool {
	if len(os.Args) < 8 || os.Args[1] != "nats-server" {
		return false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	port, err := strconv.Atoi(os.Args[3]) // as startNATS has them
	if err == nil {
		err = RunNATS(ctx, os.Args[5], port, os.Args[7])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func startNATS(ctx context.Context, launch launcher, command []string, dir string, port int) error {
	data := filepath.Join(dir, "nats")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	p, err := launch(processSpec{
		argv: append(append([]string{}, command...),
			"--port", strconv.Itoa(port+behindProxy), "--store-dir", data, "--advertise", loopback(port)),
		dir: data, stopSignal: syscall.SIGTERM,
	})
	if err != nil {
		return err
	}
	return await(ctx, p, 30*time.Second, func(ctx context.Context) error { return natsReady(ctx, "nats://"+loopback(port+behindProxy)) })
}

func natsReady(ctx context.Context, url string) error {
	conn, err := nats.Connect(url, nats.Timeout(time.Second), nats.NoReconnect())
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	_, err = js.AccountInfo(ctx)
	return err
}
