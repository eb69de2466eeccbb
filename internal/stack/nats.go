package stack

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsServer says how the child process is to run.
type natsServer struct {
	port      int
	dir       string
	advertise string // where clients are told that it is, so that none learns of the one behind the proxy
	sync      bool   // each message is on the disk before it is acknowledged
}

func (n natsServer) args() []string {
	return []string{"--port", strconv.Itoa(n.port), "--store-dir", n.dir, "--advertise", n.advertise, "--sync=" + strconv.FormatBool(n.sync)}
}

// parseNATS is the opposite of args.
func parseNATS(args []string) (n natsServer, err error) {
	flags := flag.NewFlagSet("nats-server", flag.ContinueOnError)
	flags.IntVar(&n.port, "port", 0, "")
	flags.StringVar(&n.dir, "store-dir", "", "")
	flags.StringVar(&n.advertise, "advertise", "", "")
	flags.BoolVar(&n.sync, "sync", false, "")
	if err := flags.Parse(args); err != nil {
		return n, err
	}
	if n.port == 0 || n.dir == "" || n.advertise == "" || flags.NArg() > 0 {
		return n, fmt.Errorf("nats-server: --port, --store-dir and --advertise are needed, and nothing else than --sync may be there: %q", args)
	}
	return n, nil
}

func (n natsServer) options() *server.Options {
	return &server.Options{
		ServerName:      "loadline",
		Host:            "127.0.0.1",
		Port:            n.port,
		ClientAdvertise: n.advertise,
		JetStream:       true,
		StoreDir:        n.dir,
		SyncAlways:      n.sync,
		NoSigs:          true, // ctx carries the signals
		LogtimeUTC:      true,
	}
}

// run runs the server until ctx is done, then shuts it down in order.
func (n natsServer) run(ctx context.Context) error {
	s, err := server.NewServer(n.options())
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

// ServeNATS is for programs that are their own [Config.NATSCommand], as loadline and tests
// are: {os.Args[0], "nats-server"}. It reports false, at once, when the program is not run as
// that; otherwise it runs a NATS server with JetStream until it is asked to end. The server is
// a Go module, so no program has to be installed for it, and as a process of its own it can be
// paused and killed like the others.
func ServeNATS() bool {
	if len(os.Args) < 2 || os.Args[1] != "nats-server" {
		return false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	n, err := parseNATS(os.Args[2:])
	if err == nil {
		err = n.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func startNATS(ctx context.Context, launch launcher, c Config, port int) error {
	n := natsServer{port: port + behindProxy, dir: filepath.Join(c.Dir, "nats"), advertise: loopback(port), sync: c.SyncNATS}
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	p, err := launch(processSpec{argv: slices.Concat(c.NATSCommand, n.args()), dir: n.dir, stopSignal: syscall.SIGTERM})
	if err != nil {
		return err
	}
	return await(ctx, p, 30*time.Second, func(ctx context.Context) error { return natsReady(ctx, "nats://"+loopback(n.port)) })
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
