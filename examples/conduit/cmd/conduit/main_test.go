package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestMissingVariables: the error names the variable and says what it is for.
func TestMissingVariables(t *testing.T) {
	for _, test := range []struct {
		command, url, secret string
		want                 string // part of the error; empty for none
	}{
		{"serve", "", "secret", "DATABASE_URL is not set"},
		{"serve", "postgres://", "", "CONDUIT_JWT_SECRET is not set"},
		{"serve", "postgres://", "secret", ""},
		{"migrate", "", "", "DATABASE_URL is not set"},
		{"migrate", "postgres://", "", ""},
	} {
		t.Setenv("DATABASE_URL", test.url)
		t.Setenv("CONDUIT_JWT_SECRET", test.secret)
		parser, err := kong.New(&commands{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = parser.Parse([]string{test.command})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s with %q and %q: %v, want %q", test.command, test.url, test.secret, err, test.want)
		}
	}
}
