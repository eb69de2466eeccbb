package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

// App is an application to run on the stack.
type App struct {
	// Setup are commands that run one after the other, to their end, before the
	// first instance starts: migrations, content.
	Setup [][]string
	// Command is run once per instance, with PORT set to the instance's own, and LOADLINE_ADMIN
	// to where it may serve its metrics.
	Command []string
	// Instances is at most [MaxInstances].
	Instances int
	// Env is added to the environment, after that of [Stack.Env].
	Env []string
	// Output gets what the setup prints. Default: nobody.
	Output io.Writer
}

// StartApp runs the setup, starts the instances, waits until they are ready, and
// puts the balancer in front of them. An instance is ready when it answers
// GET /readyz with anything but 503; one that has no such path may answer 404. It may be called once.
func (s *Stack) StartApp(ctx context.Context, app App) error {
	if app.Instances < 1 || app.Instances > MaxInstances {
		return fmt.Errorf("stack: instances: %d is not between 1 and %d", app.Instances, MaxInstances)
	}
	if len(app.Command) == 0 {
		return errors.New("stack: the application's command is missing")
	}
	for _, argv := range app.Setup {
		if err := s.runSetup(ctx, app, append(s.Env(), app.Env...), argv); err != nil {
			return err
		}
	}
	ports := make(map[string]int, 3*app.Instances)
	for n := range app.Instances {
		addService(ports, instanceName(n+1), s.ports.Instance(n+1))
		ports[instanceName(n+1)+"'s metrics"] = s.ports.Instance(n+1) + besideApp
	}
	if err := checkFree(ports); err != nil {
		return fmt.Errorf("stack: another program uses a port that is needed; choose others with --port-base:\n%w", err)
	}
	for n := range app.Instances {
		port := s.ports.Instance(n + 1)
		err := s.add(ctx, instanceName(n+1), "app", port, func(ctx context.Context, launch launcher) error {
			// At each start: a promotion changes which server is the primary.
			return startInstance(ctx, launch, app, append(s.Env(), app.Env...), port)
		})
		if err != nil {
			return fmt.Errorf("stack: %w", err)
		}
	}
	listener, err := net.Listen("tcp", loopback(s.ports.App()))
	if err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		_ = listener.Close()
		return errors.New("stack: it is being stopped")
	}
	s.balancer = newBalancer(listener, s.liveInstances)
	return nil
}

func instanceName(n int) string { return fmt.Sprintf("app-%d", n) }

// liveInstances are the proxies of the instances whose processes run.
func (s *Stack) liveInstances() []*faultproxy.Proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	var live []*faultproxy.Proxy
	for _, c := range s.children {
		if c.service.Role == "app" && c.service.State == Ready {
			live = append(live, c.proxy)
		}
	}
	return live
}

func (s *Stack) runSetup(ctx context.Context, app App, env, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = app.Output, app.Output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// It gets to roll back what it has begun, then its whole group is ended.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("stack: setup: %w", err)
	}
	pid := cmd.Process.Pid
	err := s.setSetup(&Service{Name: "setup", Role: "setup", PID: pid, StartID: startID(pid)})
	err = errors.Join(cmd.Wait(), err, s.setSetup(nil))
	_ = syscall.Kill(-pid, syscall.SIGKILL) // what it left running
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("stack: setup: %s %w", quote(argv), err)
	}
	return nil
}

func (s *Stack) setSetup(service *Service) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setup = service
	return s.writeStateLocked()
}

func quote(argv []string) string {
	text := filepath.Base(argv[0])
	for _, arg := range argv[1:] {
		text += " " + arg
	}
	return text + ":"
}

func startInstance(ctx context.Context, launch launcher, app App, env []string, port int) error {
	p, err := launch(processSpec{
		argv:       app.Command,
		env:        append([]string{fmt.Sprintf("PORT=%d", port+behindProxy), "LOADLINE_ADMIN=" + loopback(port+besideApp)}, env...),
		stopSignal: syscall.SIGTERM,
	})
	if err != nil {
		return err
	}
	return await(ctx, p, 60*time.Second, func(ctx context.Context) error {
		return askReady(ctx, loopback(port+behindProxy))
	})
}
