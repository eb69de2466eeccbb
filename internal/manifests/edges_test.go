package manifests_test

import (
	"io"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/loadlinehq/loadline/internal/manifests"
	"github.com/loadlinehq/loadline/telemetry"
)

// An objective that is taken is an edge of the histograms that telemetry has, as they are
// scraped; others are not taken.
func TestObjectivesAreEdges(t *testing.T) {
	t.Parallel()
	set, err := telemetry.New(t.Context(), telemetry.Config{Service: "test", Histograms: telemetry.Classic})
	if err != nil {
		t.Fatal(err)
	}
	duration, err := set.Meters.Meter("test").Float64Histogram("http.server.request.duration", metric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	duration.Record(t.Context(), 0.1)
	request := httptest.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1/metrics", nil)
	request.RemoteAddr = "127.0.0.1:1"
	answer := httptest.NewRecorder()
	set.Admin(telemetry.AdminConfig{}).ServeHTTP(answer, request)
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	scraped := make(map[string]bool)
	for _, found := range regexp.MustCompile(`http_server_request_duration_seconds_bucket\{.*le="([0-9.e-]+)"`).FindAllStringSubmatch(string(body), -1) {
		scraped[found[1]] = true
	}
	if len(scraped) < 30 {
		t.Fatalf("there are %d edges:\n%s", len(scraped), body)
	}
	taken := 0
	step := time.Millisecond
	for d := step; d <= time.Minute; d += step {
		if d == time.Second {
			step = 250 * time.Millisecond // as all edges are from here on
		}
		c := with(func(c *manifests.Config) { c.Latency, c.ClassicHistograms = d, true })
		files, err := manifests.Prometheus(c)
		if err != nil {
			continue
		}
		taken++
		// The rule asks for it as it is written there.
		_, edge, _ := strings.Cut(string(files[0].Content), "_bucket{job=\"conduit\",http_route!~\"/healthz|/readyz\",le=")
		edge, _, _ = strings.Cut(strings.TrimPrefix(edge, "~")[1:], `"`)
		edge, _, _ = strings.Cut(edge, "|")
		if !scraped[edge] {
			t.Errorf("%s is taken, and asks for the edge %q, which nobody has", d, edge)
		}
	}
	// Those of less than a thousandth, and not of whole ones, cannot be objectives; beyond a minute neither.
	if most := len(scraped); taken < most-6 || taken > most {
		t.Errorf("%d objectives are taken, of %d edges", taken, most)
	}
}
