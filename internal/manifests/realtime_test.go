package manifests_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/manifests"
	"github.com/loadlinehq/loadline/internal/manifests/selectors"
	"github.com/loadlinehq/loadline/realtime"
	"github.com/loadlinehq/loadline/telemetry"
)

// What alerts and dashboards ask of gateways is said by one, with its labels.
func TestGatewaysEmit(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	set, err := telemetry.New(t.Context(), telemetry.Config{Service: "test", Histograms: telemetry.Classic, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	g, err := realtime.Open(t.Context(), realtime.Config{
		Authenticate: realtime.Anonymous, Logger: quiet, MeterProvider: set.Meters,
		Namespaces: map[string]realtime.Namespace{"article": {Subscribe: realtime.Anyone, History: 1, HistoryAge: time.Minute}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Publish(t.Context(), realtime.Publication{Channel: realtime.Channel{Namespace: "article", Name: "a"}, At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	poll := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/poll", strings.NewReader(`{"channels":{"article:a":{}},"wait":0.01}`))
	g.Handler().ServeHTTP(httptest.NewRecorder(), poll) // a client comes, and goes
	emitted := func() map[string][]string {
		families, err := set.Gatherer().Gather()
		if err != nil {
			t.Fatal(err)
		}
		all := make(map[string][]string)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					all[f.GetName()] = append(all[f.GetName()], l.GetName())
				}
				if m.Histogram != nil {
					all[f.GetName()+"_bucket"] = all[f.GetName()]
				}
			}
			all[f.GetName()] = append(all[f.GetName()], "job", "instance")
		}
		return all
	}
	all := emitted()
	for limit := time.Now().Add(10 * time.Second); all["loadline_realtime_disconnects_total"] == nil && time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		all = emitted()
	}
	asked := 0
	for name, content := range made(t, forms()["keda-latency"]) {
		expressions, _ := selectors.Rules(content)
		if filepath.Ext(name) == ".json" {
			if expressions, err = selectors.Dashboard(content); err != nil {
				t.Fatal(err)
			}
		}
		for _, expr := range expressions {
			for _, s := range selectors.Of(expr) {
				if !strings.HasPrefix(s.Name, "loadline_realtime_") {
					continue
				}
				asked++
				for _, label := range s.Labels {
					if label != "job" && !slices.Contains(all[s.Name], label) {
						t.Errorf("%s: %s{%s} is not there: %s", name, s.Name, label, expr)
					}
				}
				if all[s.Name] == nil {
					t.Errorf("%s: %s is not there: %s", name, s.Name, expr)
				}
			}
		}
	}
	if asked < 15 {
		t.Errorf("only %d series are asked for", asked)
	}
}

// Without gateways nobody asks for them.
func TestNoGateways(t *testing.T) {
	t.Parallel()
	for name, content := range made(t, with(func(*manifests.Config) {})) {
		if strings.Contains(string(content), "loadline_realtime_") || name == "realtime.json" {
			t.Errorf("%s has them", name)
		}
	}
}
