package config_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPrint(t *testing.T) {
	t.Parallel()
	_, values, err := load(t, "database:\n  url: postgres://app:hunter22@db/app\n  max: 30\n  replicas: [a, 'b c', 'yes', '1']\n", "QUERY_TIMEOUT=2s")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := values.WriteYAML(&out); err != nil {
		t.Fatal(err)
	}
	origin := values.File()
	want := `database:
  url: "postgres://app:[redacted]@db/app"  # FILE:2
  max: 30                                  # FILE:3
  port: 5432                               # default
  share: 0                                 # default
  queryTimeout: 2s                         # environment QUERY_TIMEOUT
  disableJIT: false                        # default
  replicas: [a, "b c", "yes", "1"]         # FILE:4
auth:
  jwtSecret: "[redacted]"  # default
  pin: 0                   # default
  keys: []                 # default
`
	if diff := cmp.Diff(want, strings.ReplaceAll(out.String(), origin, "FILE")); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	if err := values.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var got struct {
		File   string
		Values struct {
			Database struct {
				URL, QueryTimeout string
				Max               int
				Replicas          []string
			}
			Auth struct{ JWTSecret string }
		}
		Origins map[string]string
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	if d := got.Values.Database; got.File != origin || d.URL != "postgres://app:[redacted]@db/app" || d.QueryTimeout != "2s" || d.Max != 30 || len(d.Replicas) != 4 ||
		got.Values.Auth.JWTSecret != "[redacted]" || got.Origins["database.queryTimeout"] != "environment QUERY_TIMEOUT" {
		t.Errorf("got %s", out.String())
	}
}

// What is printed can be loaded, and means the same.
func TestPrintedIsLoaded(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "plain", "a b", "~", "null", ".inf", "-", "- a", "#", "a: b", "{", "\t", "\"quoted\"", "it's", "0x10", "1e3", "<&>", "ключ", "a\nb\n", "\x01\u2028", "%", "!x", "&x", "/path/to.it", "2s"} {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		want, values, err := load(t, "database:\n  replicas: ["+string(quoted)+"]\n  url: "+string(quoted)+"\n")
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if want.Database.URL != text {
			t.Errorf("%q was loaded as %q", text, want.Database.URL)
		}
		var out strings.Builder
		if err := values.WriteYAML(&out); err != nil {
			t.Fatal(err)
		}
		// The secret was redacted.
		got, _, err := load(t, out.String(), "JWT_SECRET="+want.Auth.Secret)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(database{}, "NotInFile"), cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s\n%s", text, err, out.String(), diff)
		}
	}
}
