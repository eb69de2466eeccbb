package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"

	"github.com/loadlinehq/loadline/internal/check"
	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/stack"
)

type checkCmd struct {
	databaseFlag
	Replica []string `sep:"none" placeholder:"URL" help:"A replica's connection string; again for each. Key database.replicas, variable DATABASE_REPLICA_URLS."`
	Redis   string   `placeholder:"URL" help:"Redis. Key redis.url, variable REDIS_URL."`
	brokerFlags
	streamNames

	Instances int           `default:"1" help:"Of the application, whose pools are compared with what the servers allow."`
	Timeout   time.Duration `default:"${check_timeout}" help:"How long each server may take."`
	Strict    bool          `help:"End with 1 for warnings, too."`
	JSON      bool          `name:"json" help:"Print JSON."`

	Stack dataFlag `embed:""`
}

// streamNames are those of the streams that should be there.
type streamNames struct {
	Stream      string `group:"Streams:" default:"${stream}" env:"LOADLINE_EVENTS_STREAM" help:"Name of the stream of events."`
	DeadLetters string `group:"Streams:" default:"${dead_letters}" env:"LOADLINE_EVENTS_DEAD_LETTERS" help:"Name of the stream of dead letters."`
	Advisories  string `group:"Streams:" default:"${advisories}" env:"LOADLINE_EVENTS_ADVISORIES" help:"Name of the stream of what the broker has given up."`
}

// Help is shown below the flags.
func (checkCmd) Help() string {
	return `It reads what the application gets: the variables DATABASE_URL, DATABASE_REPLICA_URLS, REDIS_URL and NATS_URL, and the sections
database, redis and nats of the configuration. Flags win. What has no address is left out; with none at all, it is the running
stack of --data that is checked. Nothing is written to any server.

It ends with 1 when a check has failed. A warning is what works until it does not; a note asks for nothing.`
}

// checkSettings are the sections that applications have in the file: all of their keys, since others
// are mistakes.
type checkSettings struct {
	Database struct {
		URL            string        `yaml:"url" env:"DATABASE_URL"`
		Replicas       []string      `yaml:"replicas" env:"DATABASE_REPLICA_URLS"`
		MaxConns       int           `yaml:"max" env:"CONDUIT_POOL_MAX"`
		ReplicaConns   int           `yaml:"replicaMax" env:"CONDUIT_REPLICA_POOL_MAX"`
		LagLimit       time.Duration `yaml:"lagLimit" env:"CONDUIT_LAG_LIMIT"`
		IdleTimeout    time.Duration `yaml:"idleTimeout"`
		ConnectTimeout time.Duration `yaml:"connectTimeout"`
		QueryTimeout   time.Duration `yaml:"queryTimeout"`
	} `yaml:"database"`
	Redis struct {
		URL string `yaml:"url" env:"REDIS_URL"`
	} `yaml:"redis"`
	NATS struct {
		URL      string `yaml:"url" env:"NATS_URL"`
		MaxBytes int64  `yaml:"maxBytes" env:"CONDUIT_EVENTS_MAX_BYTES"`
	} `yaml:"nats"`
}

// The defaults of the application.
func defaultCheckSettings() checkSettings {
	var s checkSettings
	s.Database.MaxConns, s.Database.ReplicaConns, s.Database.LagLimit = 20, 40, 30*time.Second
	s.NATS.MaxBytes = 1 << 30
	return s
}

// Run prints what it finds, and fails when something has.
func (c *checkCmd) Run(ctx context.Context, app *cli, command *kong.Context) error {
	if c.Timeout <= 0 {
		return fmt.Errorf("--timeout is %v: a server needs some time to answer", c.Timeout)
	}
	asked, what, err := c.config(app.File)
	if err != nil {
		return err
	}
	began := time.Now()
	servers := check.Run(ctx, asked)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	total := make(map[check.Level]int)
	for _, s := range servers {
		for _, f := range s.Findings {
			total[f.Level]++
		}
	}
	if c.JSON {
		err = printJSON(checkResult{Servers: servers, Total: total})
	} else {
		err = printChecks(newReporter(os.Stdout), what, servers, total, time.Since(began))
	}
	return errors.Join(err, c.verdict(total))
}

// checkResult is what --json prints.
type checkResult struct {
	Servers []check.Server      `json:"servers"`
	Total   map[check.Level]int `json:"total"`
}

func (c *checkCmd) verdict(total map[check.Level]int) error {
	switch failed, warned := total[check.Failed], total[check.Warning]; {
	case failed > 0:
		return fmt.Errorf("%d %s failed", failed, plural(failed, "check"))
	case c.Strict && warned > 0:
		return fmt.Errorf("%d %s, and --strict", warned, plural(warned, "warning"))
	}
	return nil
}

// config says what to ask, and in words where that was found.
func (c *checkCmd) config(path string) (asked check.Config, what string, err error) {
	s := defaultCheckSettings()
	others := append(slices.DeleteFunc(sections(), func(name string) bool {
		return name == "database" || name == "redis" || name == "nats"
	}), "stack", "deploy")
	values, err := config.Load(&s, config.Sources{Path: path, Environ: os.Environ(), Others: others})
	if err != nil {
		return asked, "", fmt.Errorf("the configuration is wrong:\n%w", err)
	}
	what = "Checking what " + cmp.Or(values.File(), "the environment") + " says"
	asked = check.Config{
		Primary: cmp.Or(c.URL, s.Database.URL), Replicas: s.Database.Replicas, Redis: cmp.Or(c.Redis, s.Redis.URL), NATS: cmp.Or(c.NATS, s.NATS.URL),
		Instances: c.Instances, PoolConns: s.Database.MaxConns, ReplicaConns: s.Database.ReplicaConns, LagLimit: s.Database.LagLimit,
		Timeout: c.Timeout, Redact: config.Redact,
	}
	if len(c.Replica) > 0 {
		asked.Replicas = c.Replica
	}
	if asked.Primary == "" && len(asked.Replicas) == 0 && asked.Redis == "" && asked.NATS == "" {
		if err := fromStack(c.Stack.Data, &asked); err != nil {
			return asked, "", err
		}
		what = "Nothing is configured: checking the stack in " + c.Stack.Data
	}
	if c.Credentials != "" {
		asked.NATSOptions = append(asked.NATSOptions, nats.UserCredentials(c.Credentials))
		asked.NATSFlags = append(asked.NATSFlags, "--creds", c.Credentials)
	}
	if c.CA != "" {
		asked.NATSOptions = append(asked.NATSOptions, nats.RootCAs(c.CA))
		asked.NATSFlags = append(asked.NATSFlags, "--tlsca", c.CA)
	}
	asked.Streams = []check.Stream{
		{Name: c.Stream, MaxBytes: s.NATS.MaxBytes},
		{Name: c.DeadLetters, MaxBytes: max(s.NATS.MaxBytes/5, 1<<20)}, // as Conduit asks for
		{Name: c.Advisories, MaxBytes: 64 << 20},                       // as natsjs makes it
	}
	asked.Tables, err = newestTables()
	return asked, what, err
}

// fromStack takes the servers of a stack that runs on this machine.
func fromStack(dir string, asked *check.Config) error {
	state, err := stack.ReadState(dir)
	if err != nil || state.PID == 0 {
		return fmt.Errorf("there is nothing to check: set DATABASE_URL, REDIS_URL or NATS_URL as the application has them, or start a stack with loadline up; in %s none runs", dir)
	}
	for _, pair := range state.Env {
		switch name, value, _ := strings.Cut(pair, "="); name {
		case "DATABASE_URL":
			asked.Primary = value
		case "DATABASE_REPLICA_URLS":
			for url := range strings.SplitSeq(value, ",") {
				if url != "" {
					asked.Replicas = append(asked.Replicas, url)
				}
			}
		case "REDIS_URL":
			asked.Redis = value
		case "NATS_URL":
			asked.NATS = value
		}
	}
	return nil
}

// newestTables are those that this program would make.
func newestTables() ([]check.Tables, error) {
	var all []check.Tables
	for _, set := range migrations() {
		names, err := fs.Glob(set.Files, "*.sql")
		if err != nil {
			return nil, err
		}
		tables := check.Tables{Name: set.Name}
		for _, name := range names {
			number, _, _ := strings.Cut(name, "_")
			version, err := strconv.ParseInt(number, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s/%s: %w", set.Name, name, err)
			}
			tables.Version = max(tables.Version, version)
		}
		all = append(all, tables)
	}
	return all, nil
}

// printChecks prints a line for each finding, and what asks the same by hand.
func printChecks(r *reporter, what string, servers []check.Server, total map[check.Level]int, took time.Duration) error {
	r.headline("%s", what)
	styles := map[check.Level]string{check.OK: green, check.Note: faint, check.Warning: yellow, check.Failed: red}
	name, kind := 0, 0
	for _, s := range servers {
		name = max(name, len(s.Name))
		for _, f := range s.Findings {
			kind = max(kind, len(f.Check))
		}
	}
	var b strings.Builder
	for _, s := range servers {
		for _, f := range s.Findings {
			level := r.paint(styles[f.Level], fmt.Sprintf("%-7s", f.Level))
			do := ""
			if f.Do != "" {
				do = " → " + f.Do
			}
			found := f.Found
			if f.Check == "reachable" {
				found = s.Address + ": " + found
			}
			fmt.Fprintf(&b, "  %s  %-*s  %-*s  %s\n", level, name, s.Name, kind, f.Check, printable(found+do))
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.paint(bold, "By hand:"))
	for _, s := range servers {
		if s.ByHand != "" { // of a URL that is none there is nothing to ask
			fmt.Fprintf(&b, "  %s\n", s.ByHand)
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %d %s, %d %s, %d failed in %.1f s\n", total[check.OK], total[check.Note], plural(total[check.Note], "note"),
		total[check.Warning], plural(total[check.Warning], "warning"), total[check.Failed], took.Seconds())
	_, err := io.WriteString(r.out, b.String())
	return err
}
