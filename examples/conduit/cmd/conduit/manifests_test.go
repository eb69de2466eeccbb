package main

import (
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/loadlinehq/loadline/internal/manifests"
	"github.com/loadlinehq/loadline/internal/manifests/selectors"
)

// fromPrometheus are labels that it adds to what it scrapes.
var fromPrometheus = []string{"job", "instance", "le"}

// asked are the series that rules and dashboards name, with their labels, but for what
// rules record and what Prometheus itself says.
func asked(t *testing.T, classic bool) map[string][]string {
	t.Helper()
	c := manifests.Defaults()
	c.Image, c.ConnectionLimit, c.ClassicHistograms = "conduit:1", 500, classic
	all := make(map[string][]string)
	for _, make := range []func(manifests.Config) ([]manifests.File, error){manifests.Prometheus, manifests.Grafana} {
		files, err := make(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			expressions, _ := selectors.Rules(f.Content)
			if filepath.Ext(f.Name) == ".json" {
				if expressions, err = selectors.Dashboard(f.Content); err != nil {
					t.Fatal(err)
				}
			}
			for _, expr := range expressions {
				for _, s := range selectors.Of(expr) {
					if s.Name != "up" && !strings.Contains(s.Name, ":") {
						all[s.Name] = append(all[s.Name], s.Labels...)
					}
				}
			}
		}
	}
	if len(all) < 30 {
		t.Fatalf("only %d series are asked for: %v", len(all), slices.Sorted(maps.Keys(all)))
	}
	return all
}

// An alert on a series that nobody emits is silent for ever: what manifests ask for is in
// a real scrape, with its labels, in either form of histograms.
func notEmitted(t *testing.T, metrics string) []string {
	t.Helper()
	emitted := make(map[string]string) // the labels of all its series
	for line := range strings.Lines(metrics) {
		if found := regexp.MustCompile(`^([a-z_0-9]+)(\{.*\})? `).FindStringSubmatch(line); found != nil {
			emitted[found[1]] += "," + strings.TrimPrefix(found[2], "{")
		}
	}
	var missing []string
	for _, classic := range []bool{false, true} {
		for name, labels := range asked(t, classic) {
			all, found := emitted[name]
			if !found && !classic { // the text form of a native histogram has its count alone
				all, found = emitted[name+"_count"]
			}
			if !found {
				missing = append(missing, name)
				continue
			}
			for _, label := range labels {
				if !slices.Contains(fromPrometheus, label) && !strings.Contains(all, ","+label+"=") {
					missing = append(missing, name+"{"+label+"}")
				}
			}
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// The check of TestOneTrace finds what is missing, a series or a label, and nothing else.
func TestNotEmitted(t *testing.T) {
	t.Parallel()
	missing := notEmitted(t, "process_cpu_seconds_total 1\nloadline_ratelimit_decisions_total{decision=\"denied\"} 1\n")
	for name, want := range map[string]bool{
		"process_cpu_seconds_total": false, "loadline_ratelimit_decisions_total": false,
		"loadline_ratelimit_decisions_total{by}": true, "loadline_db_replica_lag_seconds": true, "http_server_request_duration_seconds_bucket": true,
	} {
		if slices.Contains(missing, name) != want {
			t.Errorf("that %s is missing is %t: %v", name, !want, missing)
		}
	}
}

// crowd has callers wait for connections, of which there are few, so that it is measured.
func crowd(base, token string) {
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/api/articles?offset=%d", base, i), nil)
			if err != nil {
				return
			}
			request.Header.Set("Authorization", "Token "+token)
			if response, err := http.DefaultClient.Do(request); err == nil {
				_ = response.Body.Close()
			}
		})
	}
	all.Wait()
}
