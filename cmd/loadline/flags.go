package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/check"
	"github.com/loadlinehq/loadline/internal/version"
	"github.com/loadlinehq/loadline/outbox"
	"github.com/loadlinehq/loadline/realtime"
)

// fieldTag names, at a flag, the field of a library's configuration that the flag sets.
const fieldTag = "field"

// defaults are those of the libraries, for the flags that set their fields.
func defaults() kong.Vars {
	gib := func(n int64) string { return fmt.Sprintf("%dGiB", n>>30) }
	return kong.Vars{
		"stream": natsjs.DefaultStream, "dead_letters": natsjs.DefaultDeadLetters, "advisories": natsjs.DefaultAdvisories,
		"max_age": short(natsjs.DefaultMaxAge), "max_bytes": gib(natsjs.DefaultMaxBytes),
		"dead_letter_max_age": short(natsjs.DefaultDeadLetterMaxAge), "dead_letter_max_bytes": gib(natsjs.DefaultDeadLetterMaxBytes),
		"duplicates": short(natsjs.DefaultDuplicates),
		"on_poison":  string(outbox.Skip), "batch": strconv.Itoa(outbox.DefaultBatch), "poll": short(outbox.DefaultPoll),
		"lease_ttl": short(outbox.DefaultLeaseTTL), "retention": short(outbox.DefaultRetention),
		"rate": strconv.Itoa(outbox.DefaultRepublishRate), "check_timeout": short(check.DefaultTimeout),
		"realtime_prefix": realtime.DefaultPrefix, "realtime_drain": short(realtime.DefaultDrain),
		"version": "loadline " + version.String(),
	}
}

// short is a duration without units that are zero: 72h.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// flagNames are a command's flags by the fields that they set. Errors of libraries name
// fields, and who reads them here knows flags.
type flagNames map[string]string

func flagNamesOf(parsed *kong.Context) flagNames {
	names := make(flagNames)
	for _, flag := range parsed.Flags() {
		if field := flag.Tag.Get(fieldTag); field != "" {
			names[field] = "--" + flag.Name
		}
	}
	return names
}

var fieldName = regexp.MustCompile(`\b\w*Config\.\w+`)

// replace says in a text how the flags are called.
func (n flagNames) replace(text string) string {
	return fieldName.ReplaceAllStringFunc(text, func(field string) string { return cmp.Or(n[field], field) })
}

// logger logs to the command's standard error.
func logger(parsed *kong.Context, level slog.Level) *slog.Logger {
	names := flagNamesOf(parsed)
	return slog.New(slog.NewTextHandler(parsed.Stderr, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if err, ok := a.Value.Any().(error); ok {
				a.Value = slog.StringValue(err.Error())
			}
			if a.Value.Kind() == slog.KindString {
				a.Value = slog.StringValue(names.replace(a.Value.String()))
			}
			return a
		},
	}))
}

// refuseZeros: a zero is the default to a library, and something else to who writes it
// on a command line.
func refuseZeros(parsed *kong.Context) error {
	var errs []error
	for _, flag := range parsed.Flags() {
		if flag.Tag.Has(fieldTag) && flag.HasDefault && flag.Target.IsZero() {
			errs = append(errs, fmt.Errorf("--%s has no meaning for 0 or nothing; leave it out for %s", flag.Name, flag.Default))
		}
	}
	return errors.Join(errs...)
}

// byteSize is a number of bytes as parseBytes reads it.
type byteSize int64

// Decode is called by kong.
func (s *byteSize) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("bytes", &text); err != nil {
		return err
	}
	n, ok := parseBytes(text)
	if !ok {
		return fmt.Errorf("%q is not a number of bytes such as 500MB or 10GiB", text)
	}
	*s = byteSize(n)
	return nil
}

// parseBytes reads a number of bytes with a unit of 1000 or, with an i, 1024.
func parseBytes(text string) (int64, bool) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, ok := map[string]float64{
		"": 1, "b": 1, "k": 1e3, "kb": 1e3, "kib": 1 << 10, "m": 1e6, "mb": 1e6, "mib": 1 << 20, "g": 1e9, "gb": 1e9, "gib": 1 << 30,
		"t": 1e12, "tb": 1e12, "tib": 1 << 40,
	}[strings.ToLower(text[len(number):])]
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || !ok || !(value*unit >= 1 && value*unit < math.MaxInt64) {
		return 0, false
	}
	return int64(value * unit), true
}
