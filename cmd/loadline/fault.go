package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/adminport"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

type faultCmd struct {
	List  faultListCmd  `cmd:"" help:"List the faults that are active."`
	Add   faultAddCmd   `cmd:"" help:"Add a fault to a service; --help lists the kinds."`
	Clear faultClearCmd `cmd:"" help:"Undo faults."`
}

type faultListCmd struct {
	dataFlag
	JSON bool `name:"json" help:"Print JSON."`
}

func (c *faultListCmd) Run(ctx context.Context) error {
	status, err := askStatus(ctx, c.Data)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(status.Faults)
	}
	if len(status.Faults) == 0 {
		fmt.Println("No faults")
		return nil
	}
	return printFaults(os.Stdout, status.Faults, time.Now())
}

func printFaults(out io.Writer, faults []stack.ActiveFault, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tFAULT\tSTATE\tFOR\tENDS\tTO UNDO IT")
	for _, f := range faults {
		ends := "when cleared"
		if !f.Until.IsZero() {
			ends = "in " + f.Until.Sub(now).Round(time.Second).String()
		}
		state := string(f.Phase)
		if f.Problem != "" {
			state += ", but " + f.Problem
		}
		f.For = 0 // ENDS says it
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", f.ID, f.Fault, state, now.Sub(f.Since).Round(time.Second), ends, f.Undo)
	}
	return table.Flush()
}

type faultAddCmd struct {
	dataFlag
	Service   string        `arg:"" help:"Service as status names it: primary, replica-1, redis, nats, app-1."`
	Kind      string        `arg:"" help:"What to do to it; one of those above."`
	Delay     time.Duration `help:"Of latency, each way, and of lag: 50ms, 5s." placeholder:"TIME"`
	Jitter    time.Duration `help:"Of latency: each delay is that much longer or shorter." placeholder:"TIME"`
	Rate      byteRate      `help:"Of bandwidth, per second: 64kB, 1MB." placeholder:"BYTES"`
	Direction string        `help:"Of latency, bandwidth and cut: to-server or to-client." placeholder:"WAY"`
	Sessions  int           `help:"Of exhaust: how many to hold; all that are free when left out." placeholder:"N"`
	For       time.Duration `help:"Undo it after this time; when cleared when left out." placeholder:"TIME"`
	JSON      bool          `name:"json" help:"Print the fault as JSON."`
}

// Help is shown below the flags.
func (faultAddCmd) Help() string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "Kinds:")
	for _, kind := range stack.FaultKinds() {
		does := kind.Does
		if kind.Services != "any" {
			does += " [" + kind.Services + "]"
		}
		fmt.Fprintf(table, "  %s\t%s\n", strings.TrimSpace(string(kind.Kind)+" "+kind.Flags), does)
	}
	_ = table.Flush()
	return text.String() + "\nThe command returns when the fault is in force. Ctrl-C before that undoes it."
}

func (c *faultAddCmd) Run(ctx context.Context) error {
	fault := stack.Fault{
		Service: c.Service, Kind: stack.FaultKind(c.Kind),
		Delay: c.Delay, Jitter: c.Jitter, BytesPerSecond: int64(c.Rate),
		Direction: faultproxy.Direction(c.Direction), Sessions: c.Sessions, For: c.For,
	}
	if err := fault.Validate(); err != nil { // also when nothing runs
		return err
	}
	body, err := json.Marshal(fault)
	if err != nil {
		return err
	}
	answer, err := askAdmin(ctx, c.Data, http.MethodPost, "/faults", body)
	if err != nil {
		return err
	}
	var active stack.ActiveFault
	if err := json.Unmarshal(answer, &active); err != nil {
		return err
	}
	switch {
	case c.JSON:
		return printJSON(active)
	case active.Phase == stack.FaultRemoved:
		fmt.Printf("Done: %s\n", active.Fault)
	default:
		fmt.Printf("Fault %s: %s\n  to undo it: %s fault clear%s %s (%s)\n", active.ID, active.Fault, programName(), c.hint(), active.ID, active.Undo)
	}
	return nil
}

type faultClearCmd struct {
	dataFlag
	What []string `arg:"" optional:"" name:"id" help:"Ids of faults, or names of services; all faults when left out."`
}

func (c *faultClearCmd) Run(ctx context.Context) error {
	status, err := askStatus(ctx, c.Data)
	if err != nil {
		return err
	}
	if len(c.What) == 0 {
		if len(status.Faults) == 0 {
			fmt.Println("No faults")
			return nil
		}
		if _, err := askAdmin(ctx, c.Data, http.MethodDelete, "/faults", nil); err != nil {
			return err
		}
		for _, f := range status.Faults {
			fmt.Printf("Undone: %s\n", f.Fault)
		}
		return nil
	}
	var errs []error
	for _, what := range c.What {
		found := false
		for i := len(status.Faults) - 1; i >= 0; i-- {
			f := status.Faults[i]
			if f.ID != what && f.Service != what {
				continue
			}
			found = true
			if _, err := askAdmin(ctx, c.Data, http.MethodDelete, "/faults/"+url.PathEscape(f.ID), nil); err != nil {
				errs = append(errs, err)
				continue
			}
			fmt.Printf("Undone: %s\n", f.Fault)
		}
		if !found {
			errs = append(errs, fmt.Errorf("no fault has the id %[1]s, and no service %[1]s has one; %[2]s fault list%[3]s shows them", what, programName(), c.hint()))
		}
	}
	return errors.Join(errs...)
}

// askStatus asks the running stack what there is.
func askStatus(ctx context.Context, dir string) (adminport.Status, error) {
	var status adminport.Status
	body, err := askAdmin(ctx, dir, http.MethodGet, "/status.json", nil)
	if err == nil {
		err = json.Unmarshal(body, &status)
	}
	return status, err
}

// askAdmin sends a request to the process that runs the stack of a directory. A fault
// takes as long as it takes: a base backup, say. Everything else is answered at once.
func askAdmin(ctx context.Context, dir, method, path string, body []byte) ([]byte, error) {
	state, err := readState(dir)
	if err != nil {
		return nil, err
	}
	limit := 5 * time.Second
	if method != http.MethodGet {
		limit = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	address := fmt.Sprintf("http://127.0.0.1:%d%s", stack.Ports{Base: state.PortBase}.Admin(), path)
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if interrupt, ok := errors.AsType[interruptError](context.Cause(ctx)); ok {
			return nil, interrupt
		}
		return nil, fmt.Errorf("loadline up (pid %d) runs, but its admin port does not answer: %w", state.PID, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 400 {
		var problem struct{ Error string }
		if json.Unmarshal(answer, &problem) != nil || problem.Error == "" {
			return nil, fmt.Errorf("%s %s: %s", method, path, response.Status)
		}
		return nil, errors.New(strings.TrimPrefix(problem.Error, "stack: "))
	}
	return answer, nil
}

func printJSON(value any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// byteRate is a number of bytes per second, as parseBytes reads it.
type byteRate int64

// Decode is called by kong.
func (r *byteRate) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("bytes", &text); err != nil {
		return err
	}
	n, ok := parseBytes(strings.TrimSuffix(text, "/s"))
	if !ok {
		return fmt.Errorf("%q is not a number of bytes per second such as 64kB or 1MB", text)
	}
	*r = byteRate(n)
	return nil
}
