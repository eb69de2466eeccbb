package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// run runs conduit and returns what it printed.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	parser, err := kong.New(&commands{}, kong.Writers(&out, &out), kong.BindTo(t.Context(), (*context.Context)(nil)))
	if err != nil {
		t.Fatal(err)
	}
	command, err := parser.Parse(args)
	if err != nil {
		t.Fatal(err)
	}
	err = command.Run()
	return out.String(), err
}

func TestSeed(t *testing.T) {
	t.Setenv("DATABASE_URL", stacktest.Postgres(t, stacktest.Migrated(postgres.Migrations)).URL)
	t.Setenv("LOADLINE_DATA", "")
	t.Setenv("CONDUIT_SEED_SCALE", "2")

	for _, want := range []string{
		`^content: generated, scale 2\n` +
			`(\d+ rows so far, now \w+\n)*` + // on a slow machine
			`loaded \d+ rows in \S+ \(\d+/s\): users 7676, articles 1572, tags \d+, .*follows 4300\n` +
			`log in as: \S+@conduit\.example / conduit-demo\n$`,
		`^content: generated, scale 2\nnothing to do: the database already has users\n$`,
	} {
		out, err := run(t, "seed")
		if err != nil || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("got error %v and\n%swant\n%s", err, out, want)
		}
	}
}

func TestSeedOrigin(t *testing.T) {
	t.Parallel()
	library := t.TempDir()
	dir := filepath.Join(library, "data", "conduit-seed")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		command            seedCmd
		wantDir, wantWords string
	}{
		"nothing is set":      {seedCmd{Scale: 3}, "", "generated, scale 3"},
		"library":             {seedCmd{Scale: 1, Library: library}, dir, "real, from " + dir},
		"library and scale":   {seedCmd{Scale: 3, Library: library}, dir, "real, from " + dir + ", and generated up to scale 3"},
		"library has none":    {seedCmd{Scale: 1, Library: t.TempDir()}, "", "generated, scale 1"},
		"data before library": {seedCmd{Scale: 1, Library: library, Data: "there"}, "there", "real, from there"},
	} {
		if gotDir, gotWords := c.command.origin(); gotDir != c.wantDir || gotWords != c.wantWords {
			t.Errorf("%s: got %q, %q, want %q, %q", name, gotDir, gotWords, c.wantDir, c.wantWords)
		}
	}
}

func TestSeedNamesTheMissingFile(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://nowhere.invalid/")
	t.Setenv("CONDUIT_SEED_SCALE", "1")
	_, err := run(t, "seed", "--data", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "users.csv.gz") {
		t.Errorf("got error %v", err)
	}
}
