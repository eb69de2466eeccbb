package contract_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
	"github.com/loadlinehq/loadline/internal/manifests"
	"github.com/loadlinehq/loadline/internal/manifests/selectors"
	"github.com/loadlinehq/loadline/internal/stack"
)

// unseen are series that a stack has only when something goes on that does not here: nobody waits for a connection, and there is no release, and nothing
// to guard. That they are emitted is for TestOneTrace, and for promtool.
var unseen = []string{"db_client_connection_wait_time_seconds", "loadline:change", "loadline:replicas:guarded"}

// A real Prometheus, with the rules that manifests makes, scrapes two instances under load: it has a value of each series that
// rules and dashboards name, and its p95 is that of who has measured it outside, within a bucket.
func TestPrometheus(t *testing.T) {
	if os.Getenv("LOADLINE_SLOW") == "" {
		t.Skip("takes two minutes, and Prometheus: set LOADLINE_SLOW")
	}
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Skip("there is no prometheus: apt-get install prometheus")
	}
	programs := build(t)
	s := openStack(t, programs)
	startConduit(t, s, programs)
	target := fmt.Sprintf("http://127.0.0.1:%d", s.Ports().App())
	cast := newCast(t, target)
	names, p := startPrometheus(t, s)

	stop := startLoad(t, target, cast)
	time.Sleep(40 * time.Second) // rules are evaluated every 15 s, and rest on each other
	for limit := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(unseen, name) || p.has(t, name) })
		if len(missing) == 0 {
			break
		}
		if time.Now().After(limit) {
			t.Errorf("of %d series there are no values of %v", len(names), missing)
			break
		}
	}
	t.Logf("%d series have values", len(names))
	stop()

	// What the network to the primary adds is most of it, so that what is between the client and the handler is little.
	if _, err := s.AddFault(t.Context(), stack.Fault{Service: "primary", Kind: stack.FaultLatency, Delay: 40 * time.Millisecond, Jitter: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	report, err := load.Run(t.Context(), load.Config{
		Target: target, Users: 20, Timeout: 5 * time.Second, WarmPath: "/api/tags", Steps: []load.Step{{Rate: 15, Duration: 40 * time.Second}},
		Journeys: []load.Weighted{{Name: "favourite", Run: func(ctx context.Context, u *load.User) error {
			token := cast.tokens[u.Rand.IntN(len(cast.tokens))]
			return ask(ctx, u, "POST /api/articles/{slug}/favorite", "/api/articles/"+cast.slugs[0]+"/favorite", token, "", &struct{}{})
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // it is scraped
	outside := report.Steps[0].Routes[0].Service.Quantile(0.95)
	const of = `sum(rate(http_server_request_duration_seconds{http_route="/api/articles/{slug}/favorite"}[60s]))`
	inside := time.Duration(p.value(t, `histogram_quantile(0.95, `+of+`)`) * float64(time.Second))
	const width = 1.19 // of a bucket of schema 2, which is the widest that these durations have
	t.Logf("p95 is %v outside, and %v in Prometheus, of %v requests", outside, inside, p.value(t, `histogram_count(`+strings.Replace(of, "rate(", "increase(", 1)+`)`))
	if ratio := outside.Seconds() / inside.Seconds(); math.IsNaN(ratio) || ratio > width || ratio < 1/width {
		t.Errorf("p95 is %v outside, and %v in Prometheus", outside, inside)
	}
}

type prometheus struct{ url string }

// startPrometheus returns the series that it should have.
func startPrometheus(t *testing.T, s *stack.Stack) ([]string, *prometheus) {
	t.Helper()
	dir := t.TempDir()
	c := manifests.Defaults()
	c.Image, c.ConnectionLimit = "conduit:1", 500
	files, err := manifests.Prometheus(c)
	if err != nil {
		t.Fatal(err)
	}
	dashboards, err := manifests.Grafana(c)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range append(files, dashboards...) {
		expressions, records := selectors.Rules(f.Content)
		if filepath.Ext(f.Name) == ".json" {
			if expressions, err = selectors.Dashboard(f.Content); err != nil {
				t.Fatal(err)
			}
		}
		names = append(names, records...)
		for _, expr := range expressions {
			for _, series := range selectors.Of(expr) {
				names = append(names, series.Name)
			}
		}
		if f.Name == "rules.yaml" {
			if err := os.WriteFile(filepath.Join(dir, f.Name), f.Content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)

	var targets []string
	for _, service := range s.Services() {
		if service.Admin != "" {
			targets = append(targets, strconv.Quote(service.Admin))
		}
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s}\nrule_files: [rules.yaml]\nscrape_configs:\n  - job_name: %s\n    static_configs: [{targets: [%s]}]\n", c.Name, strings.Join(targets, ", "))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	var log strings.Builder
	cmd := exec.Command("prometheus", "--enable-feature=native-histograms", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	p := &prometheus{"http://" + address}
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		response, err := http.Get(p.url + "/-/ready")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return names, p
			}
		}
		if time.Now().After(limit) {
			t.Fatalf("prometheus is not ready: %v\n%s", err, log.String())
		}
	}
}

// query is an expression's values.
func (p *prometheus) query(t *testing.T, expr string) (values []string) {
	t.Helper()
	response, err := http.Get(p.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Value     []any
				Histogram []any
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Error != "" {
		t.Fatalf("%s: %v %s", expr, err, answer.Error)
	}
	for _, r := range answer.Data.Result {
		switch {
		case len(r.Value) == 2:
			values = append(values, fmt.Sprint(r.Value[1]))
		case len(r.Histogram) == 2:
			values = append(values, "histogram")
		}
	}
	return values
}

// has reports whether it has a value of a series.
func (p *prometheus) has(t *testing.T, name string) bool {
	t.Helper()
	return slices.ContainsFunc(p.query(t, name), func(v string) bool { return v != "NaN" })
}

func (p *prometheus) value(t *testing.T, expr string) float64 {
	t.Helper()
	values := p.query(t, expr)
	if len(values) != 1 {
		t.Fatalf("%s has the values %v", expr, values)
	}
	v, err := strconv.ParseFloat(values[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
