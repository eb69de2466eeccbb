package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/outbox"
)

// parse parses a command line as the command does, without running it.
func parse(t *testing.T, line ...string) (*cli, *kong.Context) {
	t.Helper()
	c := new(cli)
	parser, err := kong.New(c, defaults())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	return c, parsed
}

// What the flags say by themselves is what the libraries do by themselves.
func TestDefaultsAreTheLibraries(t *testing.T) {
	t.Parallel()
	c, _ := parse(t, "events", "relay")
	relay := c.Events.Relay
	if diff := cmp.Diff(streamFlags{
		Stream: natsjs.DefaultStream, DeadLetters: natsjs.DefaultDeadLetters, Advisories: natsjs.DefaultAdvisories,
		MaxAge: natsjs.DefaultMaxAge, MaxBytes: natsjs.DefaultMaxBytes,
		DeadLetterMaxAge: natsjs.DefaultDeadLetterMaxAge, DeadLetterMaxBytes: natsjs.DefaultDeadLetterMaxBytes,
	}, relay.streamFlags); diff != "" {
		t.Error(diff)
	}
	got := outbox.RelayConfig{Batch: relay.Batch, Poll: relay.Poll, OnPoison: outbox.Poison(relay.OnPoison), Retention: relay.Retention, LeaseTTL: relay.LeaseTTL}
	if want := (outbox.RelayConfig{
		Batch: outbox.DefaultBatch, Poll: outbox.DefaultPoll, OnPoison: outbox.Skip, Retention: outbox.DefaultRetention, LeaseTTL: outbox.DefaultLeaseTTL,
	}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c, _ = parse(t, "events", "republish", "--since", "1h")
	if got := c.Events.Republish.streamFlags; got != relay.streamFlags {
		t.Errorf("republish makes a stream by %+v, and relay by %+v", got, relay.streamFlags)
	}
	if got := c.Events.Republish.Rate; got != outbox.DefaultRepublishRate {
		t.Errorf("the rate is %d", got)
	}
}

// Errors of libraries say the flag, where there is one.
func TestFieldsAreNamedAsFlags(t *testing.T) {
	t.Parallel()
	_, parsed := parse(t, "events", "relay")
	names := flagNamesOf(parsed)
	for text, want := range map[string]string{
		"natsjs: stream X: no; lower Config.MaxBytes, or":    "natsjs: stream X: no; lower --max-bytes, or",
		"Config.MaxMessages and Config.MaxBytes":             "--max-messages and --max-bytes",
		"set Config.Update to change it":                     "set --update-on-drift to change it",
		"outbox: RelayConfig.Batch is -1":                    "outbox: --batch is -1",
		"RelayConfig.MaxBytes, RelayConfig.PublishTimeout":   "RelayConfig.MaxBytes, RelayConfig.PublishTimeout",
		"natsjs: Config.DeadLetterMaxBytes is 1, less than…": "natsjs: --dead-letter-max-bytes is 1, less than…",
	} {
		if got := names.replace(text); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

// A flag's field is one that there is: a field that was renamed is found here.
func TestFieldsExist(t *testing.T) {
	t.Parallel()
	types := map[string]reflect.Type{
		"Config": reflect.TypeFor[natsjs.Config](), "RelayConfig": reflect.TypeFor[outbox.RelayConfig](), "RepublishConfig": reflect.TypeFor[outbox.RepublishConfig](),
	}
	for _, line := range [][]string{{"events", "relay"}, {"events", "republish", "--since", "1h"}} {
		_, parsed := parse(t, line...)
		names := flagNamesOf(parsed)
		if len(names) < 13 {
			t.Errorf("%v: only %v name their fields", line, names)
		}
		for name, flag := range names {
			config, field, _ := strings.Cut(name, ".")
			if of := types[config]; of == nil {
				t.Errorf("%s: there is no %s", flag, config)
			} else if _, ok := of.FieldByName(field); !ok {
				t.Errorf("%s: %s has no field %s", flag, config, field)
			}
		}
	}
}

func TestParseBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"1": 1, "64kB": 64_000, "64KiB": 65_536, "10GiB": 10 << 30, "1.5mb": 1_500_000, "2TiB": 2 << 40} {
		if got, ok := parseBytes(text); !ok || got != want {
			t.Errorf("%s: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "GiB", "0", "-1MB", "10 GB", "1e300TB", "NaN", "10XB"} {
		if got, ok := parseBytes(text); ok {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{72 * time.Hour: "72h", time.Second: "1s", 10 * time.Second: "10s", 5 * time.Minute: "5m", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s"} {
		if got := short(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}
