package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/examples/conduit/seed"
)

// progressInterval is how often a long load says where it is.
const progressInterval = 5 * time.Second

type seedCmd struct {
	Data    string `placeholder:"DIR" help:"The folder of the real content (default: data/conduit-seed in $$LOADLINE_DATA, where it is there; otherwise the content is generated)."`
	Library string `name:"loadline-data" env:"LOADLINE_DATA" hidden:""`
	Scale   int    `env:"CONDUIT_SEED_SCALE" default:"1" help:"How many times the size of the real content. What is more than the real content is generated."`
}

// Run loads the content into a database that has no users yet.
func (c *seedCmd) Run(ctx context.Context, command *kong.Context, app *commands) error {
	url, err := app.databaseURL()
	if err != nil {
		return err
	}
	dir, origin := c.origin()
	source, err := seed.Open(dir, c.Scale)
	if err != nil {
		return err
	}
	fmt.Fprintln(command.Stdout, "content:", origin)

	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	config.ConnectTimeout = 5 * time.Second
	config.RuntimeParams["application_name"] = "conduit-seed"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))

	start := time.Now()
	result, err := seed.Load(ctx, conn, source, report(command.Stdout))
	if errors.Is(err, seed.ErrNotEmpty) {
		fmt.Fprintln(command.Stdout, "nothing to do: the database already has users")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(command.Stdout, summary(result, time.Since(start)))
	fmt.Fprintln(command.Stdout, "log in as:", result.DemoEmail, "/", seed.Password)
	return nil
}

// origin returns the folder of the real content, empty when there is none, and
// says in words where the content comes from.
func (c *seedCmd) origin() (dir, words string) {
	dir = c.Data
	if dir == "" && c.Library != "" {
		dir = filepath.Join(c.Library, "data", "conduit-seed")
		if _, err := os.Stat(dir); err != nil {
			dir = ""
		}
	}
	switch {
	case dir == "":
		return "", fmt.Sprintf("generated, scale %d", c.Scale)
	case c.Scale == 1:
		return dir, "real, from " + dir
	default:
		return dir, fmt.Sprintf("real, from %s, and generated up to scale %d", dir, c.Scale)
	}
}

// report returns a Progress that prints a line now and then.
func report(out io.Writer) seed.Progress {
	last, total := time.Now(), int64(0)
	return func(table string, rows int64) {
		total += rows
		if time.Since(last) >= progressInterval {
			fmt.Fprintf(out, "%d rows so far, now %s\n", total, table)
			last = time.Now()
		}
	}
}

func summary(result seed.Result, took time.Duration) string {
	var total int64
	var tables []string
	for _, t := range result.Tables {
		total += t.Rows
		tables = append(tables, fmt.Sprintf("%s %d", t.Table, t.Rows))
	}
	return fmt.Sprintf("loaded %d rows in %s (%.0f/s): %s",
		total, took.Round(10*time.Millisecond), float64(total)/took.Seconds(), strings.Join(tables, ", "))
}
