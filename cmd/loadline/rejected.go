package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/outbox"
)

// rejectedCmd is on outbox_dead: what has never come to the broker.
type rejectedCmd struct {
	List    rejectedListCmd    `cmd:"" help:"List them."`
	Revive  rejectedReviveCmd  `cmd:"" help:"Put them back into the outbox, with the numbers and ids they had."`
	Discard rejectedDiscardCmd `cmd:"" help:"Delete them; a key that was blocked goes on without them."`
}

// rejectedFilter says which are meant.
type rejectedFilter struct {
	Type   []string `placeholder:"TYPE" help:"Of these types alone."`
	Key    []string `sep:"none" placeholder:"KEY" help:"Of this key alone, or of several by several flags."`
	Tenant string   `placeholder:"NAME" help:"Of this tenant alone."`
	Reason string   `placeholder:"REASON" enum:",rejected,unencodable" default:"" help:"Of one reason: rejected by the broker, or unencodable: no event."`
}

func (f *rejectedFilter) filter() outbox.DeadFilter {
	return outbox.DeadFilter{Types: f.Type, Keys: f.Key, Tenant: f.Tenant, Reason: f.Reason}
}

func (f *rejectedFilter) empty() bool {
	return len(f.Type) == 0 && len(f.Key) == 0 && f.Tenant == "" && f.Reason == ""
}

type rejectedListCmd struct {
	databaseFlag
	rejectedFilter
	After int64 `placeholder:"SEQ" help:"Go on after this one."`
	Limit int   `default:"100" help:"How many, at most."`
	JSON  bool  `name:"json" help:"Print JSON, with all of each error."`
}

// Run lists them by their numbers.
func (c *rejectedListCmd) Run(ctx context.Context, command *kong.Context) error {
	if c.Limit < 1 {
		return fmt.Errorf("--limit is %d, less than one", c.Limit)
	}
	conn, err := c.connect(ctx, databaseWait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	dead, err := outbox.ReadDead(ctx, conn, c.filter(), c.After, c.Limit)
	if err != nil {
		return named(err)
	}
	if c.JSON {
		return printJSON(dead)
	}
	if len(dead) == 0 {
		fmt.Fprintln(command.Stdout, "None")
		return nil
	}
	if err := printDead(command.Stdout, dead); err != nil {
		return err
	}
	if len(dead) == c.Limit {
		fmt.Fprintf(command.Stdout, "perhaps there are more: --after %d\n", dead[len(dead)-1].Seq)
	}
	return nil
}

func printDead(out io.Writer, dead []outbox.Dead) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SEQ\tID\tTYPE\tKEY\tREASON\tATTEMPTS\tFIRST FAILURE\tLAST FAILURE\tERROR")
	for _, d := range dead {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", d.Seq, d.ID, printable(d.Type), printable(d.Key), d.Reason, d.Attempts,
			d.FirstFailedAt.UTC().Format(time.RFC3339), d.LastFailedAt.UTC().Format(time.RFC3339), printable(cut(d.Error)))
	}
	return table.Flush()
}

// printable quotes what would do something to the terminal, or to the table: anybody may
// have written it.
func printable(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// cut leaves of a text what has room in a table.
func cut(text string) string {
	const most = 100
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// rejectedChoice is of those that change something.
type rejectedChoice struct {
	databaseFlag
	IDs []string `arg:"" optional:"" name:"id" help:"Their ids, as list shows them."`
	All bool     `help:"All that there are, or those that the flags say."`
	rejectedFilter
}

// changeAtOnce is how many are changed by one statement.
const changeAtOnce = 1000

// change is outbox.Revive or outbox.Discard.
type change func(ctx context.Context, db outbox.DB, ids ...string) error

// do changes them, and says how many there were.
func (c *rejectedChoice) do(ctx context.Context, command *kong.Context, done string, f change) error {
	switch {
	case len(c.IDs) == 0 && !c.All:
		return errors.New("which ones? Give their ids, or --all, with --type, --key, --tenant or --reason for some of all")
	case len(c.IDs) > 0 && (c.All || !c.empty()):
		return errors.New("ids are enough: --all and what narrows it down are for events whose ids are not given")
	}
	conn, err := c.connect(ctx, databaseWait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var n int
	if c.All {
		n, err = changeAll(ctx, conn, c.filter(), f)
	} else {
		n, err = changeSome(ctx, conn, c.IDs, f)
	}
	fmt.Fprintf(command.Stdout, "%s %d\n", done, n)
	return named(err)
}

// changeAll changes each once: one that was revived may be back before the last is read.
func changeAll(ctx context.Context, conn *pgx.Conn, filter outbox.DeadFilter, f change) (int, error) {
	n := 0
	for after := int64(0); ; {
		dead, err := outbox.ReadDead(ctx, conn, filter, after, changeAtOnce)
		if err != nil || len(dead) == 0 {
			return n, err
		}
		var ids []string
		for _, d := range dead {
			ids, after = append(ids, d.ID), d.Seq
		}
		some, err := changeSome(ctx, conn, ids, f)
		n += some
		if err != nil && !errors.Is(err, outbox.ErrNotDead) { // those that are not, somebody else has seen to
			return n, err
		}
	}
}

func changeSome(ctx context.Context, conn *pgx.Conn, ids []string, f change) (int, error) {
	err := f(ctx, conn, ids...)
	if some, ok := errors.AsType[*outbox.NotDeadError](err); ok {
		return some.Done, err
	}
	if err != nil {
		return 0, err
	}
	slices.Sort(ids)
	return len(slices.Compact(ids)), nil
}

type rejectedReviveCmd struct{ rejectedChoice }

// Run revives them.
func (c *rejectedReviveCmd) Run(ctx context.Context, command *kong.Context) error {
	return c.do(ctx, command, "revived", outbox.Revive)
}

type rejectedDiscardCmd struct{ rejectedChoice }

// Run discards them.
func (c *rejectedDiscardCmd) Run(ctx context.Context, command *kong.Context) error {
	return c.do(ctx, command, "discarded", outbox.Discard)
}
