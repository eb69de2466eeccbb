package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
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
	values, err := config.Load(&s, config.Sources{Path: filepath.Join("..", "..", "..", "..", "docs", "loadline.example.yaml"), Others: sections()})
	if err != nil {
		t.Fatal(err)
	}
	for field := range values.Fields() {
		if field.Origin.File == "" {
			t.Errorf("%s is not in the example", field.Key)
		}
	}
	want := defaultSettings()
	want.Database.URL, want.Auth.JWTSecret = s.Database.URL, s.Auth.JWTSecret // have none
	want.Database.Replicas, want.Edge.TrustedProxies = []string{}, []string{}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
}

// unset keeps the environment of whoever runs the test out of it.
func unset(t *testing.T) {
	t.Helper()
	s := defaultSettings()
	for field := range config.Describe(&s).Fields() {
		if field.Env != "" {
			t.Setenv(field.Env, "") // to be restored
			os.Unsetenv(field.Env)
		}
	}
}

func TestConfigPrint(t *testing.T) {
	unset(t)
	t.Setenv("CONDUIT_JWT_SECRET", strings.Repeat("s3cret", 8))
	t.Setenv("CONDUIT_POOL_MAX", "7")
	path := configFile(t, "database: {url: 'postgres://app:hunter22@db/app', idleTimeout: 1m}\n")
	want := `database:
  url: "postgres://app:[redacted]@db/app"  # FILE:1
  replicas: []                             # default
  max: 7                                   # environment CONDUIT_POOL_MAX
  replicaMax: 40                           # default
  lagLimit: 30s                            # default
  idleTimeout: 1m0s                        # FILE:1
  connectTimeout: 2s                       # default
  queryTimeout: 5s                         # default
redis:
  url: ""  # default
nats:
  url: ""               # default
  maxBytes: 1073741824  # default
cache:
  maxBytes: 134217728  # default
http:
  host: "127.0.0.1"   # default
  port: 8080          # default
  corsOrigins: ["*"]  # default
  drainDelay: 0s      # default
  drainTimeout: 10s   # default
edge:
  trustedProxies: []       # default
  instances: 1             # default
  rateLimit: 120           # default
  loopbackRateLimit: 6000  # default
  maxInFlight: 0           # default
web:
  secure: false  # default
realtime:
  maxConnections: 50000  # default
telemetry:
  enabled: true             # default
  otlp: ""                  # default
  sampleRatio: 0.1          # default
  slow: 250ms               # default
  metricsEvery: 15s         # default
  classicHistograms: false  # default
  admin: ""                 # default
  adminToken: ""            # default
auth:
  jwtSecret: "[redacted]"  # environment CONDUIT_JWT_SECRET
`
	out, err := run(t, "config", "print", "--config", path)
	if diff := cmp.Diff(want, strings.ReplaceAll(out, path, "FILE")); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	out, err = run(t, "config", "print", "--json", "--config", path)
	if err != nil || !strings.Contains(out, `"idleTimeout": "1m0s"`) || strings.Contains(out, "hunter22") || strings.Contains(out, "s3cret") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Setenv("LOADLINE_CONFIG", path)
	if out, err = run(t, "config", "check"); err != nil || out != path+": ok\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestConfigCheck(t *testing.T) {
	unset(t)
	t.Setenv("PORT", "http")
	path := configFile(t, `stack: {replicas: 1}
databse: {}
database:
  url: postgres://app:hun/ter22@db/app
  replicas: [postgres://db/app, postgres://app:hun/ter22@db/app]
  max: 0
  replicaMax: -1
  idleTimeout: 1ms
  connectTimeout: 0
  queryTimeout: 10s
redis:
  url: redis:// hunter22@x
http:
  drainDelay: -1s
  drainTimeout: 5
edge:
  trustedProxies: [everybody]
  instances: 0
  rateLimit: -1
  loopbackRateLimit: -1
  maxInFlight: -2
realtime: {maxConnections: -1}
telemetry:
  otlp: collector:4318
  sampleRatio: 2
  slow: 0
  metricsEvery: 1ms
  admin: here
auth:
  jwtSecret: hunter22
`)
	out, err := run(t, "config", "check", "--config", path)
	want := `the configuration is wrong:
FILE:2:1: databse is not a key; did you mean database?
FILE:4:8: database.url is not understood: it is like postgres://user:password@127.0.0.1:5432/conduit, and special signs in the password are escaped (%40 for @, %2F for /, %3A for :)
FILE:5:13: database.replicas number 2 is not understood: it is like postgres://user:password@127.0.0.1:5432/conduit, and special signs in the password are escaped (%40 for @, %2F for /, %3A for :)
FILE:6:8: database.max is 0: at least one connection is needed
FILE:7:15: database.replicaMax is -1: at least one connection is needed
FILE:8:16: database.idleTimeout is 1ms: at least 2ms is needed
FILE:9:19: database.connectTimeout is 0s: without a bound, requests wait for a dead server
FILE:10:17: database.queryTimeout is 10s: it must end before a request does, which is after 10s
FILE:12:8: redis.url is not understood: it is like redis://user:password@127.0.0.1:6379/0
FILE:14:15: http.drainDelay is -1s: it cannot be negative
FILE:15:17: http.drainTimeout is "5", a number without a unit: a duration has a unit: 2s, 500ms, 5m
FILE:17:19: edge.trustedProxies number 1, "everybody", is no network, like 10.0.0.0/8 and without more bits than its length says, and no address
FILE:18:14: edge.instances is 0: there is one at least
FILE:19:14: edge.rateLimit is -1, not between 0 and 1000000
FILE:20:22: edge.loopbackRateLimit is -1, not between 0 and 10000000
FILE:21:16: edge.maxInFlight is -2: it is a number of requests, 0, or -1
FILE:22:28: realtime.maxConnections is -1: it is a number of connections, or 0
FILE:24:9: telemetry.otlp is no address of a collector, like http://127.0.0.1:4318
FILE:25:16: telemetry.sampleRatio is 2, not between 0 and 1
FILE:26:9: telemetry.slow is 0s: it must be more than 0
FILE:27:17: telemetry.metricsEvery is 1ms: it must be a second at least
FILE:28:10: telemetry.admin is "here": it is host and port, like 127.0.0.1:9464
FILE:30:14: auth.jwtSecret has 8 bytes and needs 32: make one with ` + "`openssl rand -base64 32`" + `
environment PORT: http.port is "http" where a whole number from 0 to 65535 is expected`
	if err == nil || out != "" {
		t.Fatalf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(want, strings.ReplaceAll(err.Error(), path, "FILE")); diff != "" {
		t.Error(diff)
	}
	path = configFile(t, "database: {url: 'postgres://db/app', replicas: [postgres://replica/app]}\nauth: {jwtSecret: "+strings.Repeat("x", 32)+"}\n")
	if out, err := run(t, "config", "check", "--config", path); err == nil || !strings.Contains(err.Error(), "database.replicas needs redis.url") {
		t.Errorf("replicas without Redis: %v\n%s", err, out)
	}
	// What is wrong with the server does not keep its database from migration.
	path = configFile(t, "database: {url: 'postgres://127.0.0.1:1/none'}\nhttp: {drainDelay: -1s}\n")
	if _, err := run(t, "migrate", "--config", path); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("migrate: %v", err)
	}
}

// Every variable still sets what it did.
func TestVariables(t *testing.T) {
	for name, value := range map[string]string{
		"DATABASE_URL": "postgres://db/app", "CONDUIT_POOL_MAX": "3", "DATABASE_REPLICA_URLS": "postgres://r1/app,postgres://r2/app",
		"CONDUIT_REPLICA_POOL_MAX": "5", "CONDUIT_LAG_LIMIT": "9s", "REDIS_URL": "redis://cache:6379", "NATS_URL": "nats://broker:4222", "CONDUIT_EVENTS_MAX_BYTES": "2000000", "CONDUIT_CACHE_MAX_BYTES": "3000000", "PORT": "81", "CONDUIT_HOST": "::1",
		"CONDUIT_JWT_SECRET": strings.Repeat("x", 32), "CONDUIT_CORS_ORIGINS": "https://a.example, https://b.example",
		"CONDUIT_DRAIN_DELAY": "4s", "CONDUIT_DRAIN_TIMEOUT": "5s",
		"CONDUIT_TRUSTED_PROXIES": "10.0.0.0/8,192.0.2.1", "CONDUIT_INSTANCES": "6", "CONDUIT_RATE_LIMIT": "7", "CONDUIT_LOOPBACK_RATE_LIMIT": "8", "CONDUIT_MAX_IN_FLIGHT": "-1", "CONDUIT_WEB_SECURE": "true", "CONDUIT_REALTIME_MAX_CONNECTIONS": "9",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "CONDUIT_SAMPLE_RATIO": "0.5", "CONDUIT_SLOW": "1s", "CONDUIT_METRICS_EVERY": "5s", "CONDUIT_CLASSIC_HISTOGRAMS": "true",
		"CONDUIT_TELEMETRY": "false", "LOADLINE_ADMIN": "127.0.0.1:9464", "CONDUIT_ADMIN_TOKEN": "t0ken",
	} {
		t.Setenv(name, value)
	}
	got := defaultSettings()
	if _, err := new(configFlag).load(&got); err != nil {
		t.Fatal(err)
	}
	want := settings{
		Database: postgres.Config{URL: "postgres://db/app", Replicas: []string{"postgres://r1/app", "postgres://r2/app"}, MaxConns: 3, ReplicaMaxConns: 5, LagLimit: 9 * time.Second}.WithDefaults(),
		Redis:    redisConfig{URL: "redis://cache:6379"},
		NATS:     natsConfig{URL: "nats://broker:4222", MaxBytes: 2_000_000},
		Cache:    cacheConfig{MaxBytes: 3_000_000},
		HTTP:     serverConfig{Host: "::1", Port: 81, CORSOrigins: []string{"https://a.example", "https://b.example"}, DrainDelay: 4 * time.Second, DrainTimeout: 5 * time.Second},
		Edge:     edgeConfig{TrustedProxies: []string{"10.0.0.0/8", "192.0.2.1"}, Instances: 6, RateLimit: 7, LoopbackRateLimit: 8, MaxInFlight: -1},
		Web:      webConfig{Secure: true},
		Realtime: realtimeConfig{MaxConnections: 9},
		Telemetry: telemetryConfig{
			OTLP: "http://collector:4318", SampleRatio: 0.5, Slow: time.Second, MetricsEvery: 5 * time.Second, ClassicHistograms: true, Admin: "127.0.0.1:9464", AdminToken: "t0ken",
		},
		Auth: auth.Config{JWTSecret: strings.Repeat("x", 32)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
