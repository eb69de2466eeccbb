package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/invalid"
)

// settings is a program's configuration with a value of each kind.
type settings struct {
	Database database `yaml:"database"`
	Auth     auth     `yaml:"auth"`
}

type database struct {
	URL          string        `yaml:"url" env:"DATABASE_URL"`
	Max          int32         `yaml:"max" env:"POOL_MAX"`
	Port         uint16        `yaml:"port" env:"PORT"`
	Share        float64       `yaml:"share"`
	QueryTimeout time.Duration `yaml:"queryTimeout" env:"QUERY_TIMEOUT"`
	DisableJIT   bool          `yaml:"disableJIT" env:"DISABLE_JIT"`
	Replicas     []string      `yaml:"replicas" env:"REPLICAS"`
	NotInFile    func()
}

type auth struct {
	Secret string   `yaml:"jwtSecret" env:"JWT_SECRET" secret:"true"`
	Pin    int      `yaml:"pin" env:"PIN" secret:"true"`
	Keys   []string `yaml:"keys" env:"KEYS" secret:"true"`
}

func (d database) Validate() error {
	return errors.Join(
		invalid.If(d.Max < 1, "max", "is %d: at least one connection is needed", d.Max),
		invalid.If(strings.Contains(d.URL, "bad"), "url", "is %s: that is no address", d.URL),
	)
}

func (a auth) Validate() error {
	return errors.Join(
		invalid.If(a.Secret == "", "jwtSecret", "is not set: tokens are signed with it"),
		// As a careless author would write it.
		invalid.If(a.Secret != "" && len(a.Secret) < 12, "jwtSecret", "is %q: it needs 12 bytes", a.Secret),
	)
}

func (s settings) Validate() error {
	return invalid.If(s.Database.QueryTimeout >= 10*time.Second, "database.queryTimeout", "is %s: a request ends after 10s", s.Database.QueryTimeout)
}

func defaults() settings {
	return settings{
		Database: database{URL: "postgres://127.0.0.1/app", Max: 20, Port: 5432, QueryTimeout: 5 * time.Second},
		Auth:     auth{Secret: strings.Repeat("d", 32)},
	}
}

// load loads a file of this content.
func load(t testing.TB, content string, environ ...string) (settings, *config.Values, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "loadline.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	s := defaults()
	values, err := config.Load(&s, config.Sources{Path: path, Environ: environ, Others: []string{"stack"}})
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", ""))
	}
	return s, values, err
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	content := `
stack: {replicas: 3, of: [another, program]}
x-mine: whatever
database:
  max: 30
  queryTimeout: 3s
  replicas: [postgres://one, "postgres://two"]
  disableJIT: true
  share: 0.5
auth:
  jwtSecret: |
    a long text of several words
`
	got, values, err := load(t, content, "POOL_MAX=40", "REPLICAS=postgres://three, postgres://four", "QUERY_TIMEOUT=", "OTHER=1")
	if err != nil {
		t.Fatal(err)
	}
	d := got.Database
	if d.Max != 40 || d.QueryTimeout != 3*time.Second || d.Port != 5432 || !d.DisableJIT || d.Share != 0.5 ||
		strings.Join(d.Replicas, "|") != "postgres://three|postgres://four" || got.Auth.Secret != "a long text of several words\n" {
		t.Errorf("loaded %+v", got)
	}
	for key, want := range map[string]string{
		"database.max":          "environment POOL_MAX",
		"database.replicas":     "environment REPLICAS",
		"database.queryTimeout": "loadline.yaml:6",
		"database.port":         "default",
		"auth.jwtSecret":        "loadline.yaml:11",
	} {
		field, ok := values.Lookup(key)
		if origin := field.Origin.String(); !ok || !strings.HasSuffix(origin, want) {
			t.Errorf("%s comes from %q, want %q", key, origin, want)
		}
	}
	got, _, err = load(t, "database: {replicas: [postgres://one]}", "REPLICAS=")
	if err != nil || got.Database.Replicas == nil || len(got.Database.Replicas) != 0 {
		t.Errorf("with an empty variable the list is %#v, %v", got.Database.Replicas, err)
	}
}

// TestErrors: what is wrong, where, what to do; all of it at once.
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		content string
		environ []string
		want    []string // lines
	}{
		"nothing":            {"", nil, nil},
		"comments alone":     {"# database:\n#   max: 3\n", nil, nil},
		"an empty group":     {"database:\n  # max: 3\nauth:\n", nil, nil},
		"a zero duration":    {"database: {queryTimeout: 0}", nil, nil},
		"a byte order mark":  {"\ufeffdatabase:\n  max: 30\n", nil, nil},
		"an empty document":  {"---\ndatabase:\n  max: 30\n---\n", nil, nil},
		"windows line ends":  {"database:\r\n  max: 0\r\n", nil, []string{`loadline.yaml:2:8: database.max is 0: at least one connection is needed`}},
		"several":            {"databse:\n  max: 1\ndatabase:\n  max: many\n  query_timeout: 2s\n  queryTimeout: 5\n", []string{"PORT=70000", "DISABLE_JIT=yes"}, []string{`loadline.yaml:1:1: databse is not a key; did you mean database?`, `loadline.yaml:4:8: database.max is a text where a whole number is expected`, `loadline.yaml:5:3: database.query_timeout is not a key; did you mean queryTimeout?`, `loadline.yaml:6:17: database.queryTimeout is "5", a number without a unit: a duration has a unit: 2s, 500ms, 5m`, `environment DISABLE_JIT: database.disableJIT is "yes" where true or false is expected`, `environment PORT: database.port is "70000", which is out of range for a whole number from 0 to 65535`}},
		"syntax":             {"database:\n  max: [1, 2\n", nil, []string{`loadline.yaml:2:8: sequence end token ']' not found`}},
		"a tab":              {"database:\n\tmax: 1\n", nil, []string{`loadline.yaml:2:1: found character '\t' that cannot start any token`}},
		"no group":           {"database: 5", nil, []string{`loadline.yaml:1:11: database holds a number where keys are expected, such as url`}},
		"no mapping":         {"just words", nil, []string{`loadline.yaml:1:1: holds a text where keys are expected, such as database`}},
		"a list at the top":  {"- a\n- b\n", nil, []string{`loadline.yaml:1:1: holds a list where keys are expected, such as database`}},
		"unlike any":         {"database:\n  wibble: 1\nfrobnicate: 1\n", nil, []string{`loadline.yaml:2:3: database.wibble is not a key; there are url, max, port, share, queryTimeout, disableJIT, replicas`, `loadline.yaml:3:1: frobnicate is not a key; there are database, auth, stack`}},
		"a key with a space": {"database:\n  max conns: 1\n", nil, []string{`loadline.yaml:2:3: database."max conns" is not a key; there are url, max, port, share, queryTimeout, disableJIT, replicas`}},
		"a key of a number":  {"database:\n  12: 1\n", nil, []string{`loadline.yaml:2:3: database."12" is not a key; there are url, max, port, share, queryTimeout, disableJIT, replicas`}},
		"a repeated key":     {"database:\n  max: 1\n  port: 1\n  max: 2\nstack: {a: 1, a: 2}\n", nil, []string{`loadline.yaml:4:3: "max" is here for the second time; the first is in line 2`, `loadline.yaml:5:15: "a" is here for the second time; the first is in line 5`}},
		"a quoted number":    {"database: {max: \"3\"}", nil, []string{`loadline.yaml:1:17: database.max is a text where a whole number is expected`}},
		"a hexadecimal":      {"database: {max: 0x10}", nil, []string{`loadline.yaml:1:17: database.max is "0x10" where a whole number is expected`}},
		"a fraction":         {"database: {max: 1.5}", nil, []string{`loadline.yaml:1:17: database.max is a number where a whole number is expected`}},
		"too large":          {"database: {max: 3000000000}", nil, []string{`loadline.yaml:1:17: database.max is "3000000000", which is out of range for a whole number`}},
		"no duration":        {"database: {queryTimeout: soon}", nil, []string{`loadline.yaml:1:26: database.queryTimeout is "soon" where a duration, such as 2s or 500ms, is expected`}},
		"a number as text":   {"database: {url: 5432}", nil, []string{`loadline.yaml:1:17: database.url is a number where a text is expected; put it in quotes`}},
		"no list":            {"database: {replicas: one}", nil, []string{`loadline.yaml:1:22: database.replicas is a text where a list is expected, such as [one, two]`}},
		"an item":            {"database:\n  replicas:\n    - one\n    - 2\n", nil, []string{`loadline.yaml:4:7: database.replicas is a number where a text is expected; put it in quotes`}},
		"a group of keys":    {"database: {max: {a: 1}}", nil, []string{`loadline.yaml:1:17: database.max is a group of keys where a whole number is expected`}},
		"no value":           {"database:\n  max:\n  port: 1\n", nil, []string{`loadline.yaml:2:3: database.max has no value; without the key it has its default`}},
		"anchors":            {"database: &a\n  max: 3\nauth: *a\n", nil, []string{`loadline.yaml:1:11: an anchor: this file has none; write the value itself`, `loadline.yaml:3:7: an alias: this file has none; write the value itself`}},
		"a merge key":        {"database:\n  <<: {max: 3}\n", nil, []string{`loadline.yaml:2:3: a merge key: this file has none; write the value itself`}},
		"tags":               {"database:\n  max: !!int 3\n  replicas:\n  - !!str a\n", nil, []string{`loadline.yaml:2:8: a tag: this file has none; write the value itself`, `loadline.yaml:4:5: a tag: this file has none; write the value itself`}},
		"a question mark":    {"? database\n: {max: 3}\n", nil, []string{`loadline.yaml:1:1: a key that begins with a question mark: this file has none; write the value itself`}},
		"two documents":      {"database: {max: 3}\n---\ndatabase: {max: 4}\n", nil, []string{`loadline.yaml:3:1: a second document begins: a configuration is one`}},
		"not text":           {"database:\n  url: \xff\n", nil, []string{`loadline.yaml:2:8: is not valid UTF-8`}},
		"too many keys":      {strings.Repeat("a:\n", 5_001), nil, []string{`loadline.yaml: has more than 10000 words and signs: is it a configuration?`}},
		"too deep":           {strings.Repeat("[", 10_001), nil, []string{`loadline.yaml: has more than 10000 words and signs: is it a configuration?`}},
		"too large a file":   {strings.Repeat("#", config.MaxFileBytes+1), nil, []string{`loadline.yaml: is larger than 1048576 bytes: is it a configuration?`}},
		"validate, file":     {"database:\n  max: 0\n  queryTimeout: 10s\n", nil, []string{`loadline.yaml:2:8: database.max is 0: at least one connection is needed`, `loadline.yaml:3:17: database.queryTimeout is 10s: a request ends after 10s`}},
		"validate, variable": {"database: {max: 3}", []string{"POOL_MAX=-1"}, []string{`environment POOL_MAX: database.max is -1: at least one connection is needed`}},
		"validate, password": {"database: {url: 'postgres://app:hunter22@bad/'}", nil, []string{`loadline.yaml:1:17: database.url is postgres://app:[redacted]@bad/: that is no address`}},
		"validate, secret":   {"auth: {jwtSecret: hunter22}", nil, []string{`loadline.yaml:1:19: auth.jwtSecret is "[redacted]": it needs 12 bytes`}},
		"a secret, mistyped": {"auth:\n  pin: hunter22\n  jwtSecret: [hunter22]\n  keys: hunter22\n", []string{"PIN=hunter22"}, []string{`loadline.yaml:2:8: auth.pin is a text where a whole number is expected`, `loadline.yaml:3:14: auth.jwtSecret is a list where a text is expected`, `loadline.yaml:4:9: auth.keys is a text where a list is expected, such as [one, two]`, `environment PIN: auth.pin is [redacted] where a whole number is expected`}},
		"a secret, syntax":   {"auth:\n  jwtSecret: |hunter22\n    x\n", nil, []string{`loadline.yaml:2:14: invalid header option: …`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := load(t, test.content, test.environ...)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if want := strings.Join(test.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A value that cannot be the default is asked for by key and by variable; one that is
// there, but not understood, is not asked for as well.
func TestMissingValue(t *testing.T) {
	t.Parallel()
	var s settings
	_, err := config.Load(&s, config.Sources{Environ: []string{"POOL_MAX=many"}})
	want := `environment POOL_MAX: database.max is "many" where a whole number is expected
auth.jwtSecret (variable JWT_SECRET) is not set: tokens are signed with it`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestMissingFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "nowhere.yaml")
	s := defaults()
	if values, err := config.Load(&s, config.Sources{}); err != nil || values.File() != "" {
		t.Errorf("without a file: %v", err)
	}
	if _, err := config.Load(&s, config.Sources{Path: path}); err == nil || !strings.Contains(err.Error(), "nowhere.yaml: there is no such file; name one that exists") {
		t.Errorf("the file that was named: %v", err)
	}
	if _, err := config.Load(&s, config.Sources{Path: t.TempDir()}); err == nil {
		t.Error("a directory was read as a file")
	}
}

// A mistake in a program's struct shows at its first run.
func TestSchemaPanics(t *testing.T) {
	t.Parallel()
	for name, into := range map[string]any{
		"no pointer": settings{},
		"no struct":  new(int),
		"a map": new(struct {
			M map[string]int `yaml:"m"`
		}),
		"a repeated name": new(struct {
			A, B int `yaml:"x"`
		}),
		"a repeated env": new(struct {
			A int `yaml:"a" env:"X"`
			B int `yaml:"b" env:"X"`
		}),
		"an unexported name": new(struct {
			a int `yaml:"a"`
		}),
		"an option": new(struct {
			A int `yaml:"a,omitempty"`
		}),
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_, _ = config.Load(into, config.Sources{})
		})
	}
}
