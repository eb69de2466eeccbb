package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/check"
	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// checkResultOf runs check with variables, and returns what it has printed to each, and its exit code.
func checkResultOf(t *testing.T, variables []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := loadline(t.Context(), append([]string{"check", "--data", t.TempDir()}, args...)...)
	cmd.Env = append(cmd.Env, variables...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// The environment of an application is what is checked; the file and flags have their places.
func TestCheck(t *testing.T) {
	t.Parallel()
	set := stacktest.New(t)
	all := []string{"DATABASE_URL=" + set.URL, "DATABASE_REPLICA_URLS=" + strings.Join(set.ReplicaURLs, ","), "REDIS_URL=" + set.RedisURL, "NATS_URL=" + set.NATSURL}
	patient := []string{"--timeout", "30s"}

	out, errs, code := checkResultOf(t, all, append(patient, "--stream", set.StreamPrefix+"EVENTS")...)
	if code != 0 || errs != "" {
		t.Errorf("it ended with %d: %s", code, errs)
	}
	for _, line := range []string{
		"Checking what the environment says\n", "  ok       primary    role ", "  ok       replica-2  role ", "  ok       redis      persistence ", "  ok       nats       jetstream ",
		"not there: outbox, inbox, idempotency → if the application uses these packages: loadline migrate\n", "not there: " + set.StreamPrefix + "EVENTS",
		"\nBy hand:\n  psql ", "  redis-cli -u " + set.RedisURL + " ping\n", "  nats --server " + set.NATSURL + " server check jetstream\n", " 0 failed in ",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in:\n%s", line, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("there are colours without a terminal:\n%q", out)
	}

	out, errs, code = checkResultOf(t, all, append(patient, "--strict", "--json")...)
	var result struct {
		Servers []check.Server
		Total   map[check.Level]int
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.Servers) != 5 || result.Total[check.OK] < 10 {
		t.Errorf("--json: %v\n%s", err, out)
	}
	if code != 1 || !strings.Contains(errs, "and --strict") {
		t.Errorf("--strict ended with %d: %s", code, errs)
	}

	// A file with the addresses; a variable wins over it, and a flag over both.
	file := configFile(t, fmt.Sprintf("deploy: {name: shop}\ndatabase:\n  url: %s\n  max: 500\nredis:\n  url: redis://127.0.0.1:1\n", set.URL))
	out, errs, code = checkResultOf(t, []string{"REDIS_URL=" + set.RedisURL}, append(patient, "--config", file, "--replica", set.ReplicaURLs[0], "--replica", set.URL)...)
	if code != 1 || !strings.Contains(errs, "1 check failed") {
		t.Errorf("it ended with %d: %s", code, errs)
	}
	for _, line := range []string{"Checking what " + file + " says\n", "1 instance may open 502 → raise max_connections, or lower database.max", "  ok       redis      role ", "  ok       replica-1  role ", "  failed   replica-2  role "} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in:\n%s", line, out)
		}
	}
	if strings.Contains(out, "nats") {
		t.Errorf("nobody has said where NATS is:\n%s", out)
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		variables, args []string
		want            string
	}{
		"nothing to check": {nil, nil, "there is nothing to check: set DATABASE_URL"},
		"servers away":     {[]string{"DATABASE_URL=postgres://app:hunter22@127.0.0.1:1/app", "NATS_URL=nats://127.0.0.1:1"}, nil, "2 checks failed"},
		"a mistake":        {nil, []string{"--config", configFile(t, "database:\n  urls: x\n")}, "2:3: database.urls is not a key; did you mean url?"},
		"no time":          {nil, []string{"--timeout", "0s"}, "--timeout is 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, errs, code := checkResultOf(t, test.variables, test.args...)
			if code != 1 || !strings.Contains(errs, test.want) || strings.Contains(out, "hunter22") {
				t.Errorf("it ended with %d:\n%s%s", code, out, errs)
			}
		})
	}
}

// Ctrl-C while a server hangs.
func TestCheckInterrupted(t *testing.T) {
	t.Parallel()
	url, proxy := stacktest.Proxied(t, stacktest.New(t).RedisURL)
	if err := proxy.Add("paused", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
		t.Fatal(err)
	}
	r := start(t, loadline(t.Context(), "check", "--redis", url, "--timeout", "5m"))
	r.eventually(20*time.Second, "it has connected", func() bool { return proxy.Connections() > 0 })
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	if code := r.waitEnd(5 * time.Second); code != 128+int(syscall.SIGINT) {
		t.Errorf("it ended with %d", code)
	}
}

// Every key of the sections that check reads is one that it knows, with the application's default.
func TestCheckKnowsTheExample(t *testing.T) {
	t.Parallel()
	const example = "../../docs/loadline.example.yaml"
	s := defaultCheckSettings()
	before := s
	values, err := config.Load(&s, config.Sources{Path: example, Others: append(sections(), "stack", "deploy")})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for _, variable := range []string{"DATABASE_URL", "DATABASE_REPLICA_URLS", "CONDUIT_POOL_MAX", "CONDUIT_REPLICA_POOL_MAX", "CONDUIT_LAG_LIMIT", "REDIS_URL", "NATS_URL", "CONDUIT_EVENTS_MAX_BYTES"} {
		if !strings.Contains(string(text), variable) {
			t.Errorf("%s is no variable of the application", variable)
		}
	}
	if s.Database.MaxConns != before.Database.MaxConns || s.Database.ReplicaConns != before.Database.ReplicaConns || s.Database.LagLimit != before.Database.LagLimit || s.NATS != before.NATS {
		t.Errorf("%s: the defaults are others than %+v", values.File(), before)
	}
}
