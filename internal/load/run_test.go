package load_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

func TestRunCountsEveryArrival(t *testing.T) {
	t.Parallel()
	var answered atomic.Int64
	target := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			return
		}
		if answered.Add(1)%10 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	cfg := lenient(target, get,
		load.Step{Name: "first", Rate: 200, Duration: 600 * time.Millisecond, Warmup: 100 * time.Millisecond},
		load.Step{Duration: 50 * time.Millisecond},
		load.Step{Name: "second", Rate: 400, EndRate: 100, Duration: 500 * time.Millisecond})
	var calls atomic.Int64
	cfg.Progress = func(p load.Progress) {
		calls.Add(1)
		if p.InFlight() < 0 || p.Planned == 0 || p.Step == "" {
			t.Errorf("%+v", p)
		}
	}
	arrivals := schedule(t, cfg)
	report := run(t, cfg)
	warm, planned := 0, [3]int64{}
	for _, a := range arrivals {
		if a.Warmup {
			warm++
		} else {
			planned[a.Step]++
		}
	}
	if got := answered.Load(); got != int64(len(arrivals)) {
		t.Errorf("the server answered %d requests, %d arrivals were planned", got, len(arrivals))
	}
	failed := int64(0)
	for i, s := range report.Steps {
		if s.Planned != planned[i] || s.Sent != planned[i] || s.Good+s.Failed != planned[i] || s.Unfinished+s.Dropped != 0 {
			t.Errorf("step %d: planned %d in the schedule; %+v", i, planned[i], s)
		}
		all := s.All()
		if all.Response.Count() != planned[i] || all.Service.Count() != planned[i] || all.Queue.Count() != planned[i] || all.Lag.Count() != planned[i] {
			t.Errorf("step %d: not every request is in every histogram", i)
		}
		if all.Errors != s.Failed || all.Failures["status 503"] != s.Failed {
			t.Errorf("step %d: %d errors by %v, %d failed", i, all.Errors, all.Failures, s.Failed)
		}
		failed += s.Failed
	}
	if want := int64(len(arrivals) / 10); failed > want || failed < want-int64(warm) {
		t.Errorf("%d failed, the server has refused %d", failed, want)
	}
	if report.Outcome != load.Pass || calls.Load() < 1 {
		var text bytes.Buffer
		_ = report.WriteText(&text)
		t.Errorf("%d calls of progress\n%s", calls.Load(), text.String())
	}
}

// Merging two reports, one of them through JSON, doubles the counts.
func TestReportsMerge(t *testing.T) {
	t.Parallel()
	cfg := lenient(serve(t, newSlots(10, time.Millisecond)), get, load.Step{Rate: 300, Duration: 300 * time.Millisecond})
	cfg.SLO = load.SLO{P99: 5 * time.Second}
	first := run(t, cfg)
	encoded, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	var second load.Report
	if err := json.Unmarshal(encoded, &second); err != nil {
		t.Fatal(err)
	}
	both, err := load.Merge(first, &second)
	if err != nil {
		t.Fatal(err)
	}
	if both.Steps[0].Planned != 2*first.Steps[0].Planned || both.Steps[0].Rate != 600 || both.Outcome != load.Pass {
		t.Errorf("%+v", both.Steps[0])
	}
	var want load.Histogram
	want.Merge(first.Steps[0].Routes[0].Response)
	want.Merge(first.Steps[0].Routes[0].Response)
	same(t, both.Steps[0].Routes[0].Response, want)
	if first.Steps[0].All().Response.Count() != first.Steps[0].Planned {
		t.Error("merging has changed a part")
	}
	second.Steps[0].Void = []string{"late"}
	if both, err = load.Merge(first, &second); err != nil || both.Outcome != load.Void {
		t.Errorf("a part is void, the whole is not: %v, %v", both.Outcome, err)
	}
	second.Steps = nil
	if _, err := load.Merge(first, &second); !errors.Is(err, load.ErrOtherRun) {
		t.Errorf("got %v", err)
	}
	var text bytes.Buffer
	if err := both.WriteText(&text); err != nil || !strings.Contains(text.String(), "void: 600/s: late") || !strings.Contains(text.String(), "p99.9") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

// Journeys keep state: what a page said goes into the next request.
func TestJourneyWithState(t *testing.T) {
	t.Parallel()
	var wrong atomic.Int64
	target := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/login":
			http.SetCookie(w, &http.Cookie{Name: "session", Value: r.URL.Query().Get("user")})
			fmt.Fprint(w, "token-"+r.URL.Query().Get("user"))
		case "/read":
			cookie, err := r.Cookie("session")
			if err != nil || "token-"+cookie.Value != r.Header.Get("Authorization") {
				wrong.Add(1)
			}
		}
	}))
	type session struct {
		mu    sync.Mutex
		token string
	}
	var logins atomic.Int64
	journey := func(ctx context.Context, u *load.User) error {
		s := load.State(u, func() *session { return &session{} })
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.token == "" {
			logins.Add(1)
			req, err := u.NewRequest(ctx, http.MethodPost, fmt.Sprintf("/login?user=%d", u.ID), strings.NewReader("secret"))
			if err != nil {
				return err
			}
			resp, err := u.Do("POST /login", req)
			if err != nil {
				return err
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			s.token = string(body)
		}
		if err := u.Think(ctx, time.Millisecond); err != nil {
			return err
		}
		req, err := u.NewRequest(ctx, http.MethodGet, "/read", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", s.token)
		_, err = u.Do("GET /read", req)
		return err
	}
	cfg := lenient(target, journey, load.Step{Rate: 200, Duration: 500 * time.Millisecond})
	cfg.Users, cfg.Cookies, cfg.Seed = 7, true, 3
	report := run(t, cfg)
	if report.Steps[0].Failed > 0 || wrong.Load() > 0 || logins.Load() != 7 {
		t.Errorf("%d failed, %d with another's cookie, %d logins of 7 users", report.Steps[0].Failed, wrong.Load(), logins.Load())
	}
}

// The random numbers of a journey are the arrival's, whatever else happens.
func TestJourneysRandomNumbersRepeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		draw := func() map[int]uint64 {
			var mu sync.Mutex
			drawn := make(map[int]uint64)
			run(t, virtual(func(_ context.Context, u *load.User) error {
				mu.Lock()
				defer mu.Unlock()
				drawn[u.ID] = u.Rand.Uint64()
				return nil
			}, load.Step{Rate: 1000, Duration: 100 * time.Millisecond}))
			return drawn
		}
		first, second := draw(), draw()
		seen := make(map[uint64]bool)
		for id, x := range first {
			if second[id] != x || seen[x] {
				t.Fatalf("arrival %d drew %d and %d", id, x, second[id])
			}
			seen[x] = true
		}
		if len(first) == 0 {
			t.Error("nothing was drawn")
		}
	})
}

// At the bound arrivals are dropped, counted, and a miss of the SLO; none waits. When
// there is room again, the next one is sent.
func TestDropsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := virtual(func(ctx context.Context, u *load.User) error {
			return u.Time(ctx, "slow", func(context.Context) error { time.Sleep(99 * time.Millisecond); return nil })
		}, load.Step{Rate: 500, Duration: 300 * time.Millisecond})
		cfg.MaxInFlight, cfg.Arrivals = 20, load.Uniform
		cfg.SLO = load.SLO{P99: 9 * time.Second, MaxErrors: 1}
		report := run(t, cfg)
		s := report.Steps[0]
		// Twenty for each 100 ms.
		if s.Planned != 150 || s.Sent != 60 || s.Dropped != 90 || s.Good != 60 {
			t.Errorf("planned %d, sent %d, dropped %d, good %d", s.Planned, s.Sent, s.Dropped, s.Good)
		}
		if report.Outcome != load.Fail || len(s.Misses) != 1 || !strings.Contains(s.Misses[0], "90 of 150") {
			t.Errorf("outcome %s: %v", report.Outcome, s.Misses)
		}
	})
}

// What the time-out cuts off stays in the histograms, at the time-out.
func TestTimeoutsAreRecorded(t *testing.T) {
	t.Parallel()
	const timeout = 100 * time.Millisecond
	target := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodHead {
			<-r.Context().Done()
		}
	}))
	mixed := func(ctx context.Context, u *load.User) error {
		timed := u.Time(ctx, "op", func(ctx context.Context) error {
			<-ctx.Done()
			return nil // an operation that does not say so
		})
		return errors.Join(timed, get(ctx, u))
	}
	cfg := lenient(target, mixed, load.Step{Rate: 100, Duration: 300 * time.Millisecond})
	cfg.Timeout, cfg.MaxConns = timeout, 2 // most do not even get a connection
	s := run(t, cfg).Steps[0]
	if s.Planned == 0 || s.Failed != s.Planned {
		t.Errorf("%d of %d failed", s.Failed, s.Planned)
	}
	for _, route := range s.Routes {
		if route.Response.Count() != s.Planned || route.Failures["time-out"] != s.Planned {
			t.Errorf("%s: %d recorded, failures %v, want %d", route.Route, route.Response.Count(), route.Failures, s.Planned)
		}
		for _, q := range []float64{0, 1} {
			if got := route.Response.Quantile(q); got < timeout*99/100 || got > timeout*101/100 {
				t.Errorf("%s: quantile %v is %v, want the time-out", route.Route, q, got)
			}
		}
	}
	if queue := s.All().Queue; queue.Count() != s.Planned || queue.Quantile(0.9) < timeout/2 {
		t.Errorf("%d waits for a connection, p90 %v", queue.Count(), queue.Quantile(0.9))
	}
}

// The slowest answers come after the last arrival, and count.
func TestDrainWaits(t *testing.T) {
	t.Parallel()
	cfg := lenient(serve(t, newSlots(1, 20*time.Millisecond)), get, load.Step{Rate: 200, Duration: 200 * time.Millisecond})
	report := run(t, cfg)
	s := report.Steps[0]
	if s.Good != s.Planned || s.Unfinished != 0 {
		t.Errorf("%d of %d were waited for", s.Good, s.Planned)
	}
	// One place at 50/s: the last of 40 waits for 0.6 s.
	if got := s.All().Response.Max(); got < 400*time.Millisecond {
		t.Errorf("the slowest took %v", got)
	}
	if s.BacklogSlope < 50 || s.Ended > s.Planned/2 {
		t.Errorf("the backlog's slope is %.0f/s, %d of %d ended in time", s.BacklogSlope, s.Ended, s.Planned)
	}
}

// The drain is bounded: what hangs is cut off and counted as such.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := virtual(func(ctx context.Context, u *load.User) error {
			return u.Time(ctx, "hang", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		}, load.Step{Rate: 100, Duration: 100 * time.Millisecond})
		cfg.DrainTimeout = 200 * time.Millisecond
		start := time.Now()
		s := run(t, cfg).Steps[0]
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		if s.Unfinished != s.Planned || s.All().Failures["cut off by the end of the run"] != s.Planned {
			t.Errorf("%d of %d unfinished, %v", s.Unfinished, s.Planned, s.All().Failures)
		}
	})
}

// An interrupt ends a run promptly, also in a gap of minutes, with what there is.
func TestInterruptGivesPartialReport(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cfg := lenient("", func(ctx context.Context, u *load.User) error {
		defer cancel()
		return u.Time(ctx, "once", func(context.Context) error { return nil })
	}, load.Step{Rate: 100, Duration: time.Second}, load.Step{Duration: 10 * time.Minute}, load.Step{Rate: 1, Duration: time.Minute})
	start := time.Now()
	report, err := load.Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	s := report.Steps[0]
	if report.Outcome != load.Void || report.Void[0] != "interrupted" || s.Good == 0 || s.Good == s.Planned {
		t.Errorf("outcome %s %v, %d of %d good", report.Outcome, report.Void, s.Good, s.Planned)
	}
}

func TestRefusesToDialOthers(t *testing.T) {
	t.Parallel()
	cfg := lenient("", func(ctx context.Context, u *load.User) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://192.0.2.1/", nil) // TEST-NET-1
		if err != nil {
			return err
		}
		_, err = u.Do("GET /", req)
		if !errors.Is(err, load.ErrRemote) {
			t.Errorf("got %v", err)
		}
		return err
	}, load.Step{Rate: 50, Duration: 100 * time.Millisecond})
	if s := run(t, cfg).Steps[0]; s.Failed == 0 || s.All().Failures["refused: remote host"] != s.Failed {
		t.Errorf("%d failed: %v", s.Failed, s.All().Failures)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	target := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 5000))
	}))
	cfg := lenient(target, get, load.Step{Rate: 50, Duration: 200 * time.Millisecond})
	cfg.MaxBody = 4999
	if s := run(t, cfg).Steps[0]; s.Good > 0 || s.All().Failures["answer too long"] != s.Planned {
		t.Errorf("%d good: %v", s.Good, s.All().Failures)
	}
	cfg.MaxBody = 5000
	if s := run(t, cfg).Steps[0]; s.Good != s.Planned {
		t.Errorf("%d of %d good: %v", s.Good, s.Planned, s.All().Failures)
	}
}

// Connections are opened before the first step, and never more than the bound.
func TestConnectionsAreBoundedAndWarm(t *testing.T) {
	t.Parallel()
	var opened, early, requests atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			return // at once, so that one connection could do for all
		}
		if requests.Add(1) == 1 {
			early.Store(opened.Load())
		}
		time.Sleep(5 * time.Millisecond)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	cfg := lenient(server.URL, get, load.Step{Rate: 1000, Duration: 300 * time.Millisecond})
	cfg.MaxConns, cfg.WarmConns = 8, 6
	run(t, cfg)
	if early.Load() < 6 || opened.Load() > 8 {
		t.Errorf("%d connections before the first request and %d in all, want 6 and at most 8", early.Load(), opened.Load())
	}
}

func TestTargetThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	if _, err := load.Run(t.Context(), lenient(server.URL, get, load.Step{Rate: 1, Duration: time.Second})); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
}

// A route per page must not take all memory.
func TestRoutesAreBounded(t *testing.T) {
	t.Parallel()
	cfg := lenient("", func(ctx context.Context, u *load.User) error {
		return u.Time(ctx, fmt.Sprint("GET /articles/", u.ID), func(context.Context) error { return nil })
	}, load.Step{Rate: 1000, Duration: 100 * time.Millisecond})
	s := run(t, cfg).Steps[0]
	if n := len(s.Routes); n > 65 || s.All().Response.Count() != s.Planned {
		t.Errorf("%d routes, %d of %d requests", n, s.All().Response.Count(), s.Planned)
	}
}

// A second request counts from when the journey wants it, and one after a pause from
// when the pause ends.
func TestResponseOfLaterRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(context.Context) error { time.Sleep(50 * time.Millisecond); return nil }
		quick := func(context.Context) error { return nil }
		cfg := virtual(func(ctx context.Context, u *load.User) error {
			time.Sleep(100 * time.Millisecond) // the journey's own delay is its first request's
			return errors.Join(
				u.Time(ctx, "first", quick), u.Time(ctx, "slow", slow), u.Time(ctx, "second", quick),
				u.Think(ctx, 50*time.Millisecond), u.Time(ctx, "third", quick))
		}, load.Step{Rate: 20, Duration: 300 * time.Millisecond})
		s := run(t, cfg).Steps[0]
		byName := map[string]load.RouteReport{}
		for _, r := range s.Routes {
			byName[r.Route] = r
		}
		if got := byName["first"].Response.Quantile(0); got < 99*time.Millisecond {
			t.Errorf("the first request took %v from the intended start, want 100 ms", got)
		}
		if got := byName["first"].Lag.Quantile(0); got < 99*time.Millisecond {
			t.Errorf("the first request's lag is %v, want 100 ms", got)
		}
		for _, name := range []string{"second", "third"} {
			if got := byName[name].Response.Quantile(0); got > 40*time.Millisecond {
				t.Errorf("the %s request took %v: the time before it was counted", name, got)
			}
		}
		if byName["second"].Lag.Count() != 0 || byName["third"].Lag.Count() != s.Planned {
			t.Errorf("lags of %d second and %d third requests", byName["second"].Lag.Count(), byName["third"].Lag.Count())
		}
	})
}

// A population's users are drawn alike.
func TestPopulation(t *testing.T) {
	t.Parallel()
	seen := map[int]int{}
	for _, a := range schedule(t, load.Config{
		Users: 10, Seed: rand.Uint64(), Journeys: []load.Weighted{{Run: nothing}},
		Steps: []load.Step{{Rate: 1000, Duration: 10 * time.Second}},
	}) {
		seen[a.User]++
	}
	for user := range 10 {
		if seen[user] < 800 || seen[user] > 1200 { // six standard errors
			t.Errorf("user %d arrived %d times of 10000", user, seen[user])
		}
	}
}
