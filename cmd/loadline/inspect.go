package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/adminport"
)

type statusCmd struct {
	dataFlag
	JSON bool `name:"json" help:"Print JSON."`
}

func (c *statusCmd) Run(ctx context.Context) error {
	status, err := askStatus(ctx, c.Data)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(status)
	}
	return printStatus(os.Stdout, status)
}

func printStatus(out io.Writer, status adminport.Status) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tROLE\tSTATE\tADDRESS\tPID\tLAG")
	for _, s := range status.Services {
		state := string(s.State)
		if s.Problem != "" {
			state += ", but " + s.Problem
		}
		lag := ""
		switch {
		case s.Lag != nil:
			lag = fmt.Sprintf("%d B, %.2f s", s.Lag.Bytes, s.Lag.Seconds)
		case s.Role == "replica":
			lag = "unknown"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", s.Name, s.Role, state, s.Addr, s.PID, lag)
	}
	if status.App != nil {
		fmt.Fprintf(table, "\napplication  %s\n", status.App.URL)
	}
	if status.Admin != nil {
		fmt.Fprintf(table, "live page    %s/loadline\n", status.Admin.URL)
	}
	if err := table.Flush(); err != nil || len(status.Faults) == 0 {
		return err
	}
	fmt.Fprintln(out)
	return printFaults(out, status.Faults, time.Now())
}

// readState returns the state of the running stack, or an error that says what to
// do when there is none.
func readState(dir string) (stack.RunState, error) {
	state, err := stack.ReadState(dir)
	switch {
	case errors.Is(err, stack.ErrNotRunning) && state.PID != 0:
		return state, fmt.Errorf("%w: %s; an earlier one was killed, loadline down ends what it left", err, dir)
	case errors.Is(err, stack.ErrNotRunning):
		return state, fmt.Errorf("%w: %s; start one with: loadline up --data %s", err, dir, dir)
	case err == nil && state.PID == 0:
		return state, fmt.Errorf("the stack in %s is only just starting", dir)
	}
	return state, err
}

type downCmd struct {
	dataFlag
	Wipe bool `help:"Delete all data, too."`
}

func (c *downCmd) Run(ctx context.Context) error {
	ended, err := stack.CleanUp(c.Data)
	switch {
	case errors.Is(err, stack.ErrRunning):
		if err := c.stopRunning(ctx); err != nil {
			return err
		}
	case err != nil:
		return err
	case len(ended) > 0:
		fmt.Printf("Ended what an earlier run had left: %s\n", strings.Join(ended, ", "))
	default:
		fmt.Printf("Nothing runs in %s\n", c.Data)
	}
	if c.Wipe {
		if err := stack.Wipe(c.Data); err != nil {
			return err
		}
		fmt.Printf("Deleted the data in %s\n", c.Data)
	}
	return nil
}

// stopRunning asks the process that runs the stack to end and waits for it.
func (c *downCmd) stopRunning(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	state, err := stack.ReadState(c.Data)
	for err == nil && !state.OwnerRuns() { // it has not come to write down who it is
		select {
		case <-ctx.Done():
			return fmt.Errorf("the stack in %s does not say who runs it: %w", c.Data, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
		state, err = stack.ReadState(c.Data)
	}
	if errors.Is(err, stack.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Printf("Stopping loadline up (pid %d)\n", state.PID)
	if err := syscall.Kill(state.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("pid %d: %w", state.PID, err)
	}
	for {
		if _, err := stack.ReadState(c.Data); errors.Is(err, stack.ErrNotRunning) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("loadline up (pid %d) has not ended: %w", state.PID, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// psqlCmd passes arguments on to psql. They are taken from the command line as it
// is: kong would take psql's combined flags, such as -XAtc, apart.
type psqlCmd struct {
	dataFlag
	User string   `help:"Role to connect as; postgres is the superuser." default:"app"`
	Args []string `arg:"" optional:"" passthrough:"" name:"service" help:"A PostgreSQL server, then arguments for psql. Default: the one that is the primary."`
}

// arguments returns what follows our own flags.
func (c *psqlCmd) arguments(line []string) []string {
	args := line[slices.Index(line, "psql")+1:]
	for len(args) > 0 {
		switch {
		case args[0] == "--data" || args[0] == "--user" || args[0] == "--config":
			args = args[min(2, len(args)):]
		case strings.HasPrefix(args[0], "--data=") || strings.HasPrefix(args[0], "--user=") || strings.HasPrefix(args[0], "--config="):
			args = args[1:]
		default:
			return args
		}
	}
	return nil
}

func (c *psqlCmd) Run(ctx context.Context) error {
	state, err := readState(c.Data)
	if err != nil {
		return err
	}
	service, args := "", c.arguments(os.Args)
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		service, args = args[0], args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	i := slices.IndexFunc(state.Services, func(s stack.Service) bool {
		if service == "" {
			return s.Role == "primary" // by whatever name, after a promotion
		}
		return s.Name == service && (s.Role == "primary" || s.Role == "replica")
	})
	if i < 0 {
		return fmt.Errorf("there is no PostgreSQL server %q; loadline status lists them", service)
	}
	program, err := exec.LookPath("psql")
	if err != nil {
		postgres, err := stack.FindPostgres(ctx, 0)
		if err != nil {
			return err
		}
		program = filepath.Join(postgres.BinDir, "psql")
	}
	url := fmt.Sprintf("postgres://%s@%s/app?sslmode=disable", c.User, state.Services[i].Addr)
	// In our place, so that the terminal and its signals are psql's own.
	err = syscall.Exec(program, append([]string{program, url}, args...), os.Environ())
	return fmt.Errorf("%s: %w", program, err)
}
