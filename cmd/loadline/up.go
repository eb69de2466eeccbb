package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/adminport"
)

type upCmd struct {
	dataFlag
	PortBase  int      `help:"Port of the application; the live page and servers have the ports above. 0 takes a free range." config:"stack.portBase"`
	Replicas  int      `help:"Number of PostgreSQL replicas." config:"stack.replicas"`
	Instances int      `help:"Number of instances of the application." config:"stack.instances"`
	ReadyFile string   `help:"Write addresses and processes to this file, as JSON, when all is up." placeholder:"FILE"`
	Restart   bool     `help:"Start a process again that dies; otherwise its death is reported." config:"stack.restart"`
	SyncNATS  bool     `name:"sync-nats" help:"Have NATS write each message to the disk before it is acknowledged." config:"stack.syncNATS"`
	LogMax    int64    `name:"log-max-bytes" help:"Size at which a log is cut; three older ones are kept." config:"stack.logMaxBytes" placeholder:"BYTES"`
	Setup     string   `help:"Shell command that prepares the database, run once before the first instance." placeholder:"COMMAND"`
	Command   []string `arg:"" optional:"" passthrough:"" help:"Application to run, after --: each instance has its own PORT and LOADLINE_ADMIN, and DATABASE_URL, DATABASE_REPLICA_URLS, DB_PRIMARY_HOST, DB_REPLICA_HOST (and ..._PORT), REDIS_URL and NATS_URL. Default: stack.command of the configuration, or Conduit, when its program lies beside this one."`
}

func (c *upCmd) Run(ctx context.Context, signals *signals, file *settings) (err error) {
	began := time.Now()
	// Who reads our output may end before us, by the same Ctrl-C: writing to nobody
	// must not end us before the servers. Caught, not ignored: children inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	app, err := c.app(file.Stack)
	if err != nil {
		return err
	}
	if app != nil {
		app.Env = file.env()
		if os.Getenv("CONDUIT_INSTANCES") == "" { // which may run by a command of its own
			app.Env = append(app.Env, fmt.Sprintf("CONDUIT_INSTANCES=%d", c.Instances))
		}
	}
	if _, err := stack.ReadState(c.Data); err == nil {
		return fmt.Errorf("%w: %s; stop it with: loadline down --data %s", stack.ErrRunning, c.Data, c.Data)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if c.ReadyFile != "" {
		// One of an earlier run would be taken for ours.
		if err := os.Remove(c.ReadyFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("ready file: %w", err)
		}
	}
	base := c.PortBase
	if base == 0 {
		base = stack.AnyPortBase
	}
	out := newReporter(os.Stdout)
	out.headline("Starting PostgreSQL with %d %s, Redis and NATS; data in %s", c.Replicas, plural(c.Replicas, "replica"), c.Data)
	s, err := stack.Open(ctx, stack.Config{
		Dir: c.Data, PortBase: base, Replicas: c.Replicas,
		SyncNATS: c.SyncNATS, Restart: c.Restart, LogMaxBytes: c.LogMax,
		NATSCommand: []string{self, "nats-server"},
		Notify:      out.event,
	})
	if err != nil {
		return interrupted(ctx, err)
	}
	defer func() {
		out.stopping()
		closing, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		go func() {
			select {
			case <-signals.again:
				out.headline("Ending everything by force")
				cancel()
			case <-closing.Done():
			}
		}()
		s.Close(closing)
		out.headline("Stopped; the data stays in %s", c.Data)
	}()
	if app != nil && c.isConduit() {
		secret, err := s.Secret()
		if err != nil {
			return err
		}
		app.Env = append(app.Env, "CONDUIT_JWT_SECRET="+secret)
	}
	return c.serve(ctx, s, app, out, began)
}

// serve runs the application and the admin port until ctx is done.
func (c *upCmd) serve(parent context.Context, s *stack.Stack, app *stack.App, out *reporter, began time.Time) error {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Ports().Admin())))
	if err != nil {
		return fmt.Errorf("admin port: %w", err)
	}
	appURL := ""
	if app != nil {
		appURL = fmt.Sprintf("http://127.0.0.1:%d", s.Ports().App())
		out.headline("Preparing the database, then starting %d %s of %s", app.Instances, plural(app.Instances, "instance"), filepath.Base(app.Command[0]))
	}
	adminURL := "http://" + listener.Addr().String()
	monitor := adminport.NewMonitor(s, appURL, adminURL)
	page, err := monitor.Page()
	if err != nil {
		return err
	}
	defer page.Close()
	server := &http.Server{Handler: adminport.Handler(monitor, page), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}

	ready := false
	group, ctx := errgroup.WithContext(parent)
	group.Go(func() error { return monitor.Run(ctx) })
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("admin port: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		defer server.Close() // a page that is asked again every second needs no draining
		if app != nil {
			if err := s.StartApp(ctx, *app); err != nil {
				return err
			}
		}
		if c.ReadyFile != "" {
			if err := writeReadyFile(c.ReadyFile, monitor.Status()); err != nil {
				return fmt.Errorf("ready file: %w", err)
			}
			defer os.Remove(c.ReadyFile)
		}
		out.ready(time.Since(began), appURL, adminURL, c.hints(s, app))
		ready = true
		<-ctx.Done()
		return nil
	})
	err = group.Wait()
	if ready && err == nil {
		return nil // to be stopped is how it ends well
	}
	return interrupted(parent, err)
}

// interrupted replaces what the end of ctx made fail by the signal that ended it.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// app returns the application to run; nil for none.
func (c *upCmd) app(file stackSettings) (*stack.App, error) {
	command := c.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) > 0 && !slices.Contains(os.Args, "--") {
		return nil, fmt.Errorf("unknown argument %q; the application's command goes after --", command[0])
	}
	setup := c.Setup
	if len(command) == 0 { // the file's application, with its setup
		command, c.Command, setup = file.Command, file.Command, cmp.Or(setup, file.Setup)
	}
	if c.Instances < 0 || c.Instances > stack.MaxInstances {
		return nil, fmt.Errorf("--instances %d is not between 0 and %d", c.Instances, stack.MaxInstances)
	}
	if c.Setup != "" && (len(command) == 0 || c.Instances == 0) {
		return nil, errors.New("--setup needs an application: loadline up --setup COMMAND -- COMMAND")
	}
	if c.Instances == 0 {
		return nil, nil
	}
	if len(command) == 0 {
		return c.conduit()
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return nil, fmt.Errorf("the application: %w", err)
	}
	app := &stack.App{Command: command, Instances: c.Instances, Output: os.Stdout}
	if setup != "" {
		app.Setup = [][]string{{"sh", "-c", setup}}
	}
	return app, nil
}

func (c *upCmd) isConduit() bool { return len(c.Command) == 0 }

// conduit is the example application; nil when its program is not there.
func (c *upCmd) conduit() (*stack.App, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program := filepath.Join(filepath.Dir(self), "conduit")
	if _, err := os.Stat(program); err != nil {
		return nil, nil
	}
	return &stack.App{
		Setup:   [][]string{{program, "migrate"}, {program, "seed"}},
		Command: []string{program, "serve"}, Instances: c.Instances,
		Output: os.Stdout,
	}, nil
}

// hints are the commands that the terminal ends with.
func (c *upCmd) hints(s *stack.Stack, app *stack.App) []string {
	loadline := programName()
	data := c.hint()
	hints := []string{loadline + " status" + data, loadline + " psql" + data + " replica-1", loadline + " fault add" + data + " redis latency --delay 50ms --for 30s"}
	if c.Replicas == 0 {
		hints[1] = loadline + " psql" + data
	}
	switch {
	case app == nil:
		hints = append(hints, loadline+" up"+data+" -- ./your-app")
	case c.isConduit():
		hints = append([]string{fmt.Sprintf("curl 'http://127.0.0.1:%d/api/articles?limit=3'", s.Ports().App())}, hints...)
	default:
		hints = append([]string{fmt.Sprintf("curl http://127.0.0.1:%d/", s.Ports().App())}, hints...)
	}
	return hints
}

// programName is how the user called us, so that a hint can be copied.
func programName() string {
	name := os.Args[0]
	if self, err := os.Executable(); err == nil && filepath.IsAbs(name) {
		if wd, err := os.Getwd(); err == nil {
			if relative, err := filepath.Rel(wd, self); err == nil && !strings.HasPrefix(relative, "..") {
				return relative
			}
		}
	}
	return name
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// readyService is what the ready file says of a service.
type readyService struct {
	Name string `json:"name"`
	Role string `json:"role"`
	PID  int    `json:"pid"`
	Addr string `json:"addr"`
}

func writeReadyFile(path string, status adminport.Status) error {
	ready := struct {
		App      *adminport.Link `json:"app,omitempty"`
		Admin    *adminport.Link `json:"admin,omitempty"`
		Services []readyService  `json:"services"`
	}{App: status.App, Admin: status.Admin}
	for _, s := range status.Services {
		ready.Services = append(ready.Services, readyService{Name: s.Name, Role: s.Role, PID: s.PID, Addr: s.Addr})
	}
	return stack.WriteJSON(path, ready)
}
