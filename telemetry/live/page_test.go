package live

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/telemetry"
)

func TestMain(m *testing.M) {
	// Those of a node of centrifuge that has ended: a cache of its metrics, and a second of patience; and of its client.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/maypok86/otter/v2.periodicCleanUp[...]"),
		goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge/internal/dissolve.(*Dissolver).runWorker"),
		goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge-go.(*Client).sendAsync.func1"))
}

func decode(t *testing.T, data []byte) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// said is an instance that says what a test has it say.
type said struct {
	name    string
	asked   atomic.Int64
	metrics func(n int64) []*dto.MetricFamily
	err     error
}

func (s *said) Name() string { return s.name }

func (s *said) Metrics(ctx context.Context) ([]*dto.MetricFamily, error) {
	n := s.asked.Add(1)
	if s.err != nil {
		return nil, s.err
	}
	if s.metrics == nil { // it hangs
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.metrics(n), nil
}

func (s *said) Traces(ctx context.Context) ([]Trace, error) {
	if s.metrics == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, nil
}

func (s *said) Trace(context.Context, string) (Trace, error) { return Trace{}, ErrNoTrace }

func pageOf(t *testing.T, sources ...Source) *Page {
	t.Helper()
	p, err := New(Config{Sources: func() []Source { return sources }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// gathered is what a registry with these gauges and counters says.
func gathered(counters map[string]float64) []*dto.MetricFamily {
	registry := prometheus.NewRegistry()
	for name, value := range counters {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name})
		c.Add(value)
		registry.MustRegister(c)
	}
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	return families
}

// The page is small, loads nothing from elsewhere, and changes nothing.
func TestPage(t *testing.T) {
	t.Parallel()
	p := pageOf(t)
	get := func(path, encoding string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept-Encoding", encoding)
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		return w
	}
	size := 0
	for _, path := range []string{"", "/page.css", "/page.js", "/uPlot.min.js", "/uPlot.min.css"} {
		w, plain := get(Path+path, "br, gzip"), get(Path+path, "")
		size += w.Body.Len()
		z, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(text, plain.Body.Bytes()) || w.Code != 200 {
			t.Errorf("%s: %d, %v", path, w.Code, err)
		}
		if got := w.Header().Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") || strings.Contains(got, "unsafe") {
			t.Errorf("%s: the policy is %s", path, got)
		}
		if strings.Contains(path, "page") || path == "" {
			for _, foreign := range []string{"//cdn", "src=\"http", "href=\"http", "<script>", " style=", " onclick="} {
				if bytes.Contains(text, []byte(foreign)) {
					t.Errorf("%s has %s, which its policy does not allow", path, foreign)
				}
			}
		}
	}
	t.Logf("the page has %d bytes, compressed", size)
	if size > 150_000 {
		t.Errorf("the page has %d bytes, compressed", size)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(method, Path+"/view", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

// Who watches gets a view each second, and the history; nobody is asked anything while nobody does.
func TestEvents(t *testing.T) {
	t.Parallel()
	one := &said{name: "one", metrics: func(n int64) []*dto.MetricFamily {
		started, published := 1.0, float64(100*n)
		if n >= 3 { // the process has started again, and has soon done more than before
			started, published = 2, float64(100*n-50)
		}
		return gathered(map[string]float64{"process_start_time_seconds": started, "loadline_outbox_published_total": published, "loadline_outbox_depth": 7})
	}}
	p := pageOf(t, one, &said{name: "two", err: errors.New("two does not answer")}, &said{name: "three"})
	server := httptest.NewServer(p)
	defer server.Close()
	time.Sleep(1200 * time.Millisecond)
	if n := one.asked.Load(); n != 0 {
		t.Errorf("it was asked %d times, and nobody watches", n)
	}
	response, err := server.Client().Get(server.URL + Path + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var views []View
	event := ""
	for lines := bufio.NewScanner(response.Body); len(views) < 4 && lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			event = name
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && event == "view" {
			var v View
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				t.Fatal(err)
			}
			views = append(views, v)
		}
	}
	if len(views) != 4 {
		t.Fatalf("%d views", len(views))
	}
	for i, v := range views {
		if len(v.Instances) != 3 || v.Instances[0].Problem != "" || v.Instances[1].Problem != "two does not answer" || v.Instances[2].Problem == "" {
			t.Errorf("%+v", v.Instances)
		}
		if v.Outbox == nil || v.Outbox.Depth != 7 {
			t.Fatalf("%+v", v.Outbox)
		}
		if rate := v.Outbox.Published; i%2 == 0 && rate != 0 || i%2 == 1 && (rate < 20 || rate > 150) {
			t.Errorf("view %d: %v a second", i, v.Outbox.Published)
		}
	}
	if h := p.watch.past(); len(h) < 2 || h[0].Instances != 1 {
		t.Errorf("%+v", h)
	}
	p.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Error(err)
	}
}

// An instance that misses a look has rates again with the next, and one that hangs hides no other's traces.
func TestMissedLook(t *testing.T) {
	t.Parallel()
	flaky := &said{name: "flaky"}
	flaky.metrics = func(n int64) []*dto.MetricFamily {
		if n%2 == 0 {
			return nil // and the error below
		}
		return gathered(map[string]float64{"loadline_outbox_published_total": float64(100 * n), "loadline_outbox_depth": 7})
	}
	p := pageOf(t, &missing{flaky}, &said{name: "hangs"})
	if err := p.watch.enter(); err != nil {
		t.Fatal(err)
	}
	defer p.watch.leave()
	for limit := time.Now().Add(15 * time.Second); ; {
		v, news := p.watch.latest()
		if v != nil && v.Outbox != nil && v.Outbox.Published > 50 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("there are no rates of one that answers every other time: %+v", v)
		}
		<-news
	}
	if traces := p.watch.traces(t.Context()); len(traces) != 1 || traces[0].Instance != "flaky" {
		t.Errorf("%+v", traces)
	}
	p.Close()
	if _, err := p.View(t.Context()); !errors.Is(err, errClosed) {
		t.Error(err)
	}
}

// missing is an error where a test has no metrics.
type missing struct{ *said }

func (m *missing) Metrics(ctx context.Context) ([]*dto.MetricFamily, error) {
	families, err := m.said.Metrics(ctx)
	if err == nil && families == nil {
		err = errors.New("this time not")
	}
	return families, err
}

func (m *missing) Traces(context.Context) ([]Trace, error) { return []Trace{{ID: "1"}}, nil }

func TestCrowd(t *testing.T) {
	t.Parallel()
	p := pageOf(t, &said{name: "one", metrics: func(int64) []*dto.MetricFamily { return gathered(map[string]float64{"x": 1}) }})
	for range maxWatcher {
		if err := p.watch.enter(); err != nil {
			t.Fatal(err)
		}
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path+"/events", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("one too many is answered %d", w.Code)
	}
}

// Two instances, one of which is served by HTTP behind a token: what the page shows is what both have done, merged.
func TestInstances(t *testing.T) {
	t.Parallel()
	var admins []*httptest.Server
	var handlers []http.Handler
	for i := range 2 {
		recorder := NewRecorder(50 * time.Millisecond)
		tele, err := telemetry.New(t.Context(), telemetry.Config{Service: "shop", Version: fmt.Sprint("v1.", i), SpanProcessors: []sdk.SpanProcessor{recorder}, Ratio: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tele.Shutdown(context.Background()) }()
		page, err := Of(Local(tele.Gatherer(), recorder))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(page.Close)
		mux := http.NewServeMux()
		mux.HandleFunc("GET /items/{id}", func(w http.ResponseWriter, r *http.Request) {
			if i == 1 {
				time.Sleep(60 * time.Millisecond)
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		handlers = append(handlers, tele.HTTP(telemetry.HTTPConfig{Route: func(*http.Request) string { return "/items/{id}" }})(mux))
		admin := httptest.NewServer(tele.Admin(telemetry.AdminConfig{Token: "s3cret", Page: page}))
		t.Cleanup(admin.Close)
		admins = append(admins, admin)
		request(tele.Traces.Tracer("test"), fmt.Sprint("failed ", i), true, time.Millisecond)
	}
	var sources []Source
	for _, admin := range admins {
		s, err := Remote("", strings.Replace(admin.URL, "http://", "http://any:s3cret@", 1))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, s)
	}
	locked, err := Remote("locked", admins[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	p := pageOf(t, append(sources, locked)...)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				for _, i := range []int{0, 0, 0, 0, 1} {
					handlers[i].ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/items/7", nil))
				}
			}
		}
	}()
	v, err := p.View(t.Context())
	close(stop)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Routes) != 1 || v.Routes[0].Route != "/items/{id}" || v.Now.Rate < 5 || v.Now.Failed < 0.1 || v.Now.Failed > 0.3 || v.Now.P50 > 55 || v.Now.P95 < 55 {
		t.Errorf("%+v, %+v", v.Now, v.Routes)
	}
	if v.Instances[0].Version != "v1.0" || v.Instances[1].Version != "v1.1" || !strings.Contains(v.Instances[2].Problem, "give its token") || strings.Contains(fmt.Sprint(v.Instances), "s3cret") {
		t.Errorf("%+v", v.Instances)
	}
	if len(v.Deploys) != 2 {
		t.Errorf("%+v", v.Deploys)
	}
	at := slices.IndexFunc(v.Traces, func(t Trace) bool { return t.Name == "failed 1" })
	if at < 0 || !slices.ContainsFunc(v.Traces, func(t Trace) bool { return t.Name == "failed 0" }) {
		t.Fatalf("%+v", v.Traces)
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path+"/traces/"+v.Traces[at].ID+"?instance="+v.Traces[at].Instance, nil))
	var got Trace
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Spans) != 2 || got.Spans[1].Error != "it is away" {
		t.Errorf("%d %s: %v", w.Code, w.Body, err)
	}
	w = httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path+"/traces/none?instance="+v.Traces[at].Instance, nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("a trace that is not there: %d", w.Code)
	}
	app := v.Path[1]
	if app.ID != "app" || app.Utilisation == nil {
		t.Errorf("%+v", app)
	}
}

func TestRemoteRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "127.0.0.1:9464", "ftp://x", "http://"} {
		if _, err := Remote("", bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/page/metrics":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>")
		case "/large/metrics": // as it says
			w.Header().Set("Content-Type", `application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited`)
			_, _ = w.Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f})
		case "/broken/metrics":
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			_, _ = io.WriteString(w, "{{{\n")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for path, want := range map[string]string{"/page": "serves a page at /metrics", "/broken": "/metrics: ", "/large": "/metrics: ", "/none": "serves no /metrics"} {
		s, err := Remote("", server.URL+path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Metrics(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
