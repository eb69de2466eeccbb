package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/loadlinehq/loadline/internal/stack"
)

// reporter tells a person what happens, with colour on a terminal. Its methods may
// be called concurrently.
type reporter struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
	began  map[string]time.Time
	quiet  bool // everything is being stopped: that each stops is no news
}

func newReporter(out *os.File) *reporter {
	colour := term.IsTerminal(int(out.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return &reporter{out: out, colour: colour, began: make(map[string]time.Time)}
}

const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (r *reporter) paint(style, text string) string {
	if !r.colour {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (r *reporter) headline(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(r.out, r.paint(bold, fmt.Sprintf(format, args...)))
}

// event tells of a service's start and of an end that nobody asked for.
func (r *reporter) event(e stack.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now().Format(time.TimeOnly)
	switch {
	case r.quiet && e.Service.State != stack.Starting:
		return
	case e.Fault != nil && e.Fault.Phase == stack.FaultRemoved:
		fmt.Fprintf(r.out, "%s %s %s: undone\n", now, r.paint(green, "FAULT"), e.Fault.Fault)
		return
	case e.Fault != nil:
		fmt.Fprintf(r.out, "%s %s %s\n", now, r.paint(red, "FAULT"), e.Fault.Fault)
		return
	case e.Note != "":
		fmt.Fprintf(r.out, "%s %s %s\n", now, e.Service.Name, e.Note)
		return
	}
	switch e.Service.State {
	case stack.Starting:
		r.began[e.Service.Name] = time.Now()
	case stack.Ready:
		took := time.Since(r.began[e.Service.Name]).Seconds()
		fmt.Fprintf(r.out, "  %-10s %s  %-15s pid %-7d %.1f s\n", e.Service.Name, r.paint(green, "ready"), e.Service.Addr, e.Service.PID, took)
	case stack.Exited:
		fmt.Fprintf(r.out, "%s %s %v\n  the other services go on\n", now, r.paint(red, "DIED"), e.Err)
	}
}

// stopping says that from now on ends are asked for.
func (r *reporter) stopping() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet = true
	fmt.Fprintln(r.out, r.paint(bold, "\nStopping; Ctrl-C again ends everything by force"))
}

func (r *reporter) ready(took time.Duration, appURL, adminURL string, hints []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "\n%s after %.1f s\n", r.paint(green, "Ready"), took.Seconds())
	if appURL != "" {
		fmt.Fprintf(r.out, "  application  %s\n", appURL)
	}
	fmt.Fprintf(r.out, "  live page    %s/loadline\n\n%s\n", adminURL, r.paint(bold, "Try, in another terminal:"))
	for _, hint := range hints {
		fmt.Fprintf(r.out, "  %s\n", hint)
	}
}
