package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// monitored starts a relay with metrics, and returns their URL.
func (m *mesh) monitored(args ...string) (*running, string) {
	m.t.Helper()
	r := start(m.t, m.command(m.t.Context(), append([]string{"events", "relay", "--metrics", "127.0.0.1:0", "--poll", "100ms"}, args...)...))
	address := regexp.MustCompile(`are served" address=(\S+)`)
	var found []string
	r.eventually(20*time.Second, "an address of metrics", func() bool {
		found = address.FindStringSubmatch(r.out.String())
		return found != nil
	})
	return r, "http://" + found[1]
}

func answer(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return response.StatusCode, strings.TrimSpace(string(body))
}

// The metrics are there, and the health is what the relay does: with the lease, without it, and
// without a database.
func TestRelayMetrics(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	url, database := stacktest.Proxied(t, m.URL)
	first, firstURL := m.monitored("--url", url)
	healthy := func(r *running, url string, code int, state string) {
		t.Helper()
		r.eventually(20*time.Second, state, func() bool {
			c, s := answer(t, url+"/healthz")
			return c == code && s == state
		})
	}
	healthy(first, firstURL, http.StatusOK, "leading")
	second, secondURL := m.monitored()
	healthy(second, secondURL, http.StatusOK, "standing by")

	m.add(2)
	first.eventually(20*time.Second, "two published", func() bool {
		_, text := answer(t, firstURL+"/metrics")
		return regexp.MustCompile(`(?m)^loadline_outbox_published_total\{[^}]*shard="0"[^}]*\} 2$`).MatchString(text)
	})
	_, text := answer(t, firstURL+"/metrics")
	for _, want := range []string{`loadline_outbox_relay_active{`, `loadline_outbox_publish_seconds_bucket{`, `loadline_events_stream_messages{`, "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("%s is not in:\n%s", want, text)
		}
	}
	if !regexp.MustCompile(`(?m)^loadline_outbox_publish_seconds_bucket\{.*le="0.025"`).MatchString(text) {
		t.Error("the buckets of seconds are those of milliseconds")
	}
	if _, text := answer(t, secondURL+"/metrics"); !regexp.MustCompile(`(?m)^loadline_outbox_relay_active\{[^}]*\} 0$`).MatchString(text) {
		t.Errorf("the second says it is active:\n%s", text)
	}

	if err := database.Add("away", faultproxy.Fault{Kind: faultproxy.Reset}); err != nil {
		t.Fatal(err)
	}
	healthy(first, firstURL, http.StatusServiceUnavailable, "away")
	healthy(second, secondURL, http.StatusOK, "leading")
	if err := database.Remove("away"); err != nil {
		t.Fatal(err)
	}
	healthy(first, firstURL, http.StatusOK, "standing by")

	m.refuse([]string{"events", "relay", "--metrics", strings.TrimPrefix(firstURL, "http://")}, "--metrics is where to listen", "address already in use")
}
