package main

import (
	"os"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/internal/stack"
)

// TestMain is also the NATS server of the stacks that tests start.
func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	os.Exit(m.Run())
}

// TestMissingVariables: the error names the key and the variable, and says what it
// is for.
func TestMissingVariables(t *testing.T) {
	const url = "postgres://127.0.0.1:1/none" // nobody listens
	for _, test := range []struct {
		command, url, secret string
		want                 string
	}{
		{"serve", "", strings.Repeat("s", 32), "database.url (variable DATABASE_URL) is not set"},
		{"serve", url, "", "auth.jwtSecret (variable CONDUIT_JWT_SECRET) is not set"},
		{"serve", url, "short", "environment CONDUIT_JWT_SECRET: auth.jwtSecret has 5 bytes and needs 32"},
		{"serve", url, strings.Repeat("s", 32), "connection refused"},
		{"migrate", "", "", "database.url (variable DATABASE_URL) is not set"},
		{"migrate", url, "", "connection refused"},
		{"seed", "", "", "database.url (variable DATABASE_URL) is not set"},
	} {
		t.Setenv("DATABASE_URL", test.url)
		t.Setenv("CONDUIT_JWT_SECRET", test.secret)
		_, err := run(t, test.command)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s with %q and %q: %v, want %q", test.command, test.url, test.secret, err, test.want)
		}
	}
}
