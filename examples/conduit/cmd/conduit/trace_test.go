package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/loadlinehq/loadline/edge/pgstore"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/migrate"
	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// collected are spans that a collector has got.
type collected struct {
	mu    sync.Mutex
	spans []*otlp.Span
}

func (c *collected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/traces" {
		return
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	request := new(collector.ExportTraceServiceRequest)
	if err == nil {
		err = proto.Unmarshal(data, request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
}

func attribute(s *otlp.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// all returns what there is, by the names of spans.
func (c *collected) all() []*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// One trace of a write has the request, which server answered each of its statements, and what was done with its event; what was
// published with it names it. And /metrics has the request by its route, and all that manifests ask for.
func TestOneTrace(t *testing.T) {
	// Not beside another server: what is set for all packages is the process's.
	s := stacktest.Own(t, stack.Config{Replicas: 1, DisableSync: true})
	if _, err := postgres.Migrate(t.Context(), s.DatabaseURL()); err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.Up(t.Context(), s.DatabaseURL(), migrate.Set{Name: "outbox", Files: outbox.Migrations}, migrate.Set{Name: "inbox", Files: inbox.Migrations}, migrate.Set{Name: "idempotency", Files: pgstore.Migrations}); err != nil {
		t.Fatal(err)
	}
	var got collected
	exported := httptest.NewServer(&got)
	t.Cleanup(exported.Close)
	port, admin := freePort(t), freePort(t)
	env := make(map[string]string)
	for _, line := range s.Env() {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	path := configFile(t, fmt.Sprintf(`
database: {url: %q, replicas: [%q], max: 3, replicaMax: 1}
redis: {url: %q}
nats: {url: %q, maxBytes: 10000000}
edge: {maxInFlight: 100}
http: {host: 127.0.0.1, port: %d, drainTimeout: 10s}
telemetry: {otlp: %q, sampleRatio: 1, admin: "127.0.0.1:%d", classicHistograms: true}
auth: {jwtSecret: %s}
`, env["DATABASE_URL"], env["DATABASE_REPLICA_URLS"], env["REDIS_URL"], env["NATS_URL"], port, exported.URL, admin, strings.Repeat("s", 32)))
	settings := defaultSettings()
	if _, err := config.Load(&settings, config.Sources{Path: path, Others: sections()}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, settings, armLoadline) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	send := func(method, target, token, body string) (answer struct {
		User    struct{ Token string }
		Article struct{ Slug string }
	}, err error,
	) {
		request, err := http.NewRequestWithContext(t.Context(), method, base+target, strings.NewReader(body))
		if err != nil {
			return answer, err
		}
		if token != "" {
			request.Header.Set("Authorization", "Token "+token)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return answer, err
		}
		defer response.Body.Close()
		if response.StatusCode >= http.StatusBadRequest {
			return answer, errors.New(response.Status)
		}
		return answer, json.NewDecoder(response.Body).Decode(&answer)
	}
	until(t, "the server is ready", func() bool { _, err := send(http.MethodGet, "/readyz", "", ""); return err == nil })
	must := func(method, target, token, body string) (user, slug string) {
		t.Helper()
		answer, err := send(method, target, token, body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, target, err)
		}
		return answer.User.Token, answer.Article.Slug
	}
	ann, _ := must(http.MethodPost, "/api/users", "", `{"user": {"username": "ann", "email": "ann@example.com", "password": "correct horse"}}`)
	bob, _ := must(http.MethodPost, "/api/users", "", `{"user": {"username": "bob", "email": "bob@example.com", "password": "correct horse"}}`)
	_, slug := must(http.MethodPost, "/api/articles", ann, `{"article": {"title": "T", "description": "d", "body": "b"}}`)
	must(http.MethodPost, "/api/articles/"+slug+"/comments", bob, `{"comment": {"body": "c"}}`)

	const route = "/api/articles/{slug}/comments"
	var missing string
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if missing = lacks(got.all(), "POST "+route); missing == "" {
			break
		}
		if time.Now().After(limit) {
			t.Errorf("the trace lacks %s", missing)
			for _, span := range got.all() {
				t.Logf("%x %x %s %v", span.GetTraceId()[:4], span.GetSpanId()[:4], span.GetName(), span.GetAttributes())
			}
			break
		}
	}
	scrape := func() string {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", admin))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if want, text := fmt.Sprintf("http_route=%q", route), scrape(); !strings.Contains(text, want) {
		t.Errorf("/metrics has no %s:\n%.3000s", want, text)
	}
	// Some are there only after a look at the broker, or when somebody has waited.
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(250 * time.Millisecond) {
		crowd(base, ann)
		missing := notEmitted(t, scrape())
		if len(missing) == 0 {
			break
		}
		if time.Now().After(limit) {
			t.Errorf("what manifests ask for is not emitted: %v", missing)
			break
		}
	}
}

// lacks says what is not in the trace of a request, and nothing when all is.
func lacks(spans []*otlp.Span, request string) string {
	i := slices.IndexFunc(spans, func(s *otlp.Span) bool { return s.GetName() == request })
	if i < 0 {
		return "the request"
	}
	trace := spans[i].GetTraceId()
	ofServers, handled, sent, published, invalidated := 0, false, false, false, false
	for _, s := range spans {
		here := bytes.Equal(s.GetTraceId(), trace)
		switch {
		case here && attribute(s, "server.address") != "" && attribute(s, "loadline.db.reason") != "":
			ofServers++
		case here && strings.HasPrefix(s.GetName(), "process "):
			handled = true
		case here && strings.HasPrefix(s.GetName(), "send "):
			published = true
		case here && s.GetName() == "cache invalidate":
			invalidated = true
		case s.GetName() == "send outbox":
			sent = sent || slices.ContainsFunc(s.GetLinks(), func(l *otlp.Span_Link) bool { return bytes.Equal(l.GetTraceId(), trace) })
		}
	}
	switch {
	case ofServers < 2:
		return fmt.Sprintf("statements with their server: there are %d", ofServers)
	case !handled:
		return "an event's handler"
	case !sent:
		return "a publication that names it"
	case !published:
		return "the publication of its event"
	case !invalidated:
		return "the invalidation of what is cached"
	}
	return ""
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
