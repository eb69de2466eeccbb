package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/internal/config"
)

func configFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "loadline.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestExample: the example in the documentation is understood, has every key, and
// shows the defaults.
func TestExample(t *testing.T) {
	t.Parallel()
	s := defaultSettings()
	values, err := config.Load(&s, config.Sources{Path: filepath.Join("..", "..", "docs", "loadline.example.yaml"), Others: sections()})
	if err != nil {
		t.Fatal(err)
	}
	for field := range values.Fields() {
		if field.Origin.File == "" {
			t.Errorf("%s is not in the example", field.Key)
		}
	}
	if diff := cmp.Diff(fmt.Sprintf("%+v %+v", defaultSettings().Stack, defaultSettings().Deploy), fmt.Sprintf("%+v %+v", s.Stack, s.Deploy)); diff != "" {
		t.Error(diff)
	}
}

// A flag that overrides a key overrides one that there is, and is of its type.
func TestFlagsHaveKeys(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(new(cli), defaults())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"up", "down", "status", "logs", "psql"} {
		parsed, err := parser.Parse([]string{line})
		if err != nil {
			t.Fatal(err)
		}
		if err := configure(parsed, ""); err != nil { // panics
			t.Error(err)
		}
	}
}

// A file that is broken does not keep anyone from stopping what runs.
func TestBrokenFileStopsNoOther(t *testing.T) {
	t.Parallel()
	path := configFile(t, "stack: {replicas: many}\n")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"down"}, "stack.replicas"},
		{[]string{"down", "--data", t.TempDir()}, "Nothing runs in"},
	} {
		out, _ := loadline(t.Context(), append(test.args, "--config", path)...).CombinedOutput()
		if !strings.Contains(string(out), test.want) {
			t.Errorf("%v: want %q, got:\n%s", test.args, test.want, out)
		}
	}
}

func TestConfigCommand(t *testing.T) {
	t.Parallel()
	path := configFile(t, `
database: {this: is Conduit's}
x-shared: whatever
stack:
  replicas: 3
  command: [./app, serve]
  setup: PGPASSWORD=hunter22 ./app migrate
`)
	run := func(environ []string, args ...string) (string, error) {
		cmd := loadline(t.Context(), args...)
		cmd.Env = append(cmd.Env, environ...)
		cmd.Dir = filepath.Dir(path) // where the file has its usual name
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	want := `stack:
  data: .loadline                               # default
  portBase: 9000                                # environment LOADLINE_PORT_BASE
  replicas: 3                                   # loadline.yaml:5
  instances: 2                                  # default
  restart: false                                # default
  syncNATS: false                               # default
  logMaxBytes: 10485760                         # default
  setup: "PGPASSWORD=[redacted] ./app migrate"  # loadline.yaml:7
  command: [./app, serve]                       # loadline.yaml:6
deploy:
  name: conduit                                                                                                         # default
  namespace: default                                                                                                    # default
  image: ""                                                                                                             # default
  args: []                                                                                                              # default
  secret: conduit                                                                                                       # default
  secretVariables: [DATABASE_URL, DATABASE_REPLICA_URLS, REDIS_URL, NATS_URL, CONDUIT_JWT_SECRET, CONDUIT_ADMIN_TOKEN]  # default
  variables: []                                                                                                         # default
  port: 8080                                                                                                            # default
  adminPort: 9464                                                                                                       # default
  cpu: 1                                                                                                                # default
  memoryBytes: 536870912                                                                                                # default
  minReplicas: 3                                                                                                        # default
  maxReplicas: 50                                                                                                       # default
  maxSurgePercent: 25                                                                                                   # default
  connectionLimit: 0                                                                                                    # default
  reservedConnections: 3                                                                                                # default
  pool: 0                                                                                                               # default
  replicaPool: 0                                                                                                        # default
  otherConnections: 2                                                                                                   # default
  preStop: 5s                                                                                                           # default
  scaler: hpa                                                                                                           # default
  policy: latency                                                                                                       # default
  cpuTargetPercent: 65                                                                                                  # default
  latency: 250ms                                                                                                        # default
  availability: 0.999                                                                                                   # default
  scaleIn: 5m0s                                                                                                         # default
  queueDrain: 2m0s                                                                                                      # default
  databaseRate: 0                                                                                                       # default
  realtime: ""                                                                                                          # default
  prometheus: "http://prometheus.monitoring:9090"                                                                       # default
`
	out, err := run([]string{"LOADLINE_PORT_BASE=9000"}, "config", "print")
	if diff := cmp.Diff(want, out); err != nil || diff != "" {
		t.Errorf("print: %v\n%s", err, diff)
	}
	out, err = run(nil, "config", "print", "--json")
	if err != nil || !strings.Contains(out, `"stack.replicas": "loadline.yaml:5"`) || !strings.Contains(out, `"replicas": 3`) || strings.Contains(out, "hunter22") {
		t.Errorf("print --json: %v\n%s", err, out)
	}
	if out, err = run(nil, "config", "check"); err != nil || out != "loadline.yaml: ok\n" {
		t.Errorf("check: %v\n%s", err, out)
	}
	if out, err = run([]string{"LOADLINE_CONFIG=nowhere.yaml"}, "config", "check"); err == nil || !strings.Contains(out, "nowhere.yaml: there is no such file") {
		t.Errorf("check of a file that is not there: %v\n%s", err, out)
	}

	broken := configFile(t, "stacks: {}\nstack:\n  replcias: 1\n  replicas: 9\n  portBase: '8080'\n  data: ''\n  setup: make\n")
	want = `loadline: the configuration is wrong:
FILE:1:1: stacks is not a key; did you mean stack?
FILE:3:3: stack.replcias is not a key; did you mean replicas?
FILE:4:13: stack.replicas is 9, not between 0 and 8
FILE:5:13: stack.portBase is a text where a whole number is expected
FILE:6:9: stack.data is empty: it names the directory of data, logs and state
FILE:7:10: stack.setup needs an application: name it by stack.command
environment LOADLINE_INSTANCES: stack.instances is "two" where a whole number is expected
`
	// Whoever reads the configuration refuses it.
	for _, args := range [][]string{{"config", "check"}, {"up"}, {"status"}, {"down"}, {"logs"}, {"psql"}} {
		out, err := run([]string{"LOADLINE_INSTANCES=two"}, append(args, "--config", broken)...)
		if diff := cmp.Diff(want, strings.ReplaceAll(out, broken, "FILE")); err == nil || diff != "" {
			t.Errorf("%v: %v\n%s", args, err, diff)
		}
	}
}

// The file says what up starts, and where the other commands find it; the
// application is told where the file is. A flag wins.
func TestUpByFile(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers; skipped by -short")
	}
	t.Parallel()
	dir := t.TempDir()
	path := configFile(t, fmt.Sprintf(`
stack:
  data: %s
  portBase: 1 # up's flag overrides it
  replicas: 0
  instances: 1
  setup: echo setup found $LOADLINE_CONFIG
  command: [%s, test-app]
`, dir, os.Args[0]))
	r := up(t, dir, "--config", path)
	ready := r.waitReady()
	var names []string
	for _, s := range ready.Services {
		names = append(names, s.Name)
	}
	if got, want := fmt.Sprint(names), "[primary redis nats app-1]"; got != want {
		t.Errorf("started %s, want %s", got, want)
	}
	r.waitPrinted(time.Second, "setup found "+path)
	if out, err := result(t, "status", "--config", path); err != nil || !strings.Contains(out, "app-1") {
		t.Errorf("status: %v\n%s", err, out)
	}
	if out, err := result(t, "psql", "--config", path, "-XAtc", "SELECT 40 + 2"); err != nil || strings.TrimSpace(out) != "42" {
		t.Errorf("psql: %v\n%s", err, out)
	}
}
