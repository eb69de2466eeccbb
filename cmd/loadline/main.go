// Command loadline runs a backend's servers and application on one machine, as
// they meet in production: PostgreSQL with streaming replicas, Redis, NATS, and
// instances of the application behind one address.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/internal/stack"
)

type cli struct {
	Up      upCmd      `cmd:"" help:"Start the stack and an application on it; Ctrl-C stops all of it."`
	Down    downCmd    `cmd:"" help:"Stop a running stack, or what is left of one that was killed."`
	Status  statusCmd  `cmd:"" help:"Show what runs, where, and how far the replicas are behind."`
	Logs    logsCmd    `cmd:"" help:"Print the logs of one service, or of all."`
	Psql    psqlCmd    `cmd:"" help:"Open psql on the primary, or on a replica."`
	Fault   faultCmd   `cmd:"" help:"Break something on purpose, and undo it."`
	Dash    dashCmd    `cmd:"" help:"Show what several instances do now on one page: where requests go, and what is in the way."`
	Config  configCmd  `cmd:"" help:"Show or check the configuration."`
	Gateway gatewayCmd `cmd:"" help:"Serve browsers apart from the application."`
	Events  eventsCmd  `cmd:"" help:"Relay events from the outbox to the broker, and drive them again."`
	Migrate migrateCmd `cmd:"" help:"Make the tables of the packages that need some, in the schema loadline."`
	Check   checkCmd   `cmd:"" help:"Ask the servers of any environment whether they are as they have to be."`

	Manifests  manifestsCmd  `cmd:"" help:"Make what the application needs on Kubernetes: objects, rules, dashboards."`
	Completion completionCmd `cmd:"" help:"Print what completes the command line in a shell."`
	Version    versionCmd    `cmd:"" help:"Print the version."`

	TestStack testStackCmd `cmd:"" name:"test-stack" hidden:""`

	configFlag
	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

// dataFlag is shared by all commands that find a stack by its directory.
type dataFlag struct {
	Data string `help:"Directory of the stack's data, logs and state." config:"stack.data" placeholder:"DIR"`
}

// hint is the flag as a command to copy needs it.
func (f dataFlag) hint() string {
	if f.Data == stack.DefaultDir {
		return ""
	}
	return " --data " + f.Data
}

func main() { os.Exit(run()) }

func run() int {
	if stack.ServeNATS() { // the child process of up
		return 0
	}
	var c cli
	parser := kong.Must(&c,
		kong.Name("loadline"),
		kong.Description("Runs a Go + PostgreSQL backend's servers as they meet in production."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ValueFormatter(helpWithKeys),
		defaults(),
	)
	parsed, err := parser.Parse(os.Args[1:])
	if err != nil {
		// A mistake on the command line: usage, message, and the exit code of kong.
		parser.FatalIfErrorf(err)
	}
	ctx, signals := withSignals(context.Background())
	defer signals.stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.Bind(signals)
	if err = errors.Join(configure(parsed, c.File), refuseZeros(parsed)); err == nil {
		err = parsed.Run()
	}
	code, quiet := exitCode(err)
	if !quiet {
		fmt.Fprintln(os.Stderr, "loadline:", flagNamesOf(parsed).replace(err.Error()))
	}
	return code
}

// exitCode: an interrupted command ends as the shell expects it.
func exitCode(err error) (code int, quiet bool) {
	if err == nil {
		return 0, true
	}
	if interrupt, ok := errors.AsType[interruptError](err); ok {
		return 128 + int(interrupt.signal), true
	}
	return 1, false
}

// interruptError is the cause of a context that ended by a signal.
type interruptError struct{ signal syscall.Signal }

func (e interruptError) Error() string { return "interrupted: " + e.signal.String() }

// signals are those that ask the command to end. The first ends the context, so
// that everything stops in order; each further one is passed on, for those who
// do not want to wait for that.
type signals struct {
	again chan struct{} // receives the second signal
	stop  func()
}

func withSignals(parent context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancelCause(parent)
	received := make(chan os.Signal, 2)
	signal.Notify(received, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(received, syscall.SIGHUP)
	}
	s := &signals{again: make(chan struct{}, 1)}
	ended := make(chan struct{})
	s.stop = func() {
		signal.Stop(received)
		close(ended)
		cancel(nil)
	}
	go func() {
		for first := true; ; first = false {
			select {
			case sig := <-received:
				if first {
					cancel(interruptError{signal: sig.(syscall.Signal)})
					continue
				}
				select {
				case s.again <- struct{}{}:
				default:
				}
			case <-ended:
				return
			}
		}
	}()
	return ctx, s
}
