package ratelimit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/ratelimit"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func clientOf(t testing.TB, address string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func byHeader(r *http.Request) string { return r.Header.Get("User") }

func newLimiter(t testing.TB, c ratelimit.Config, policies ...ratelimit.Policy) *ratelimit.Limiter {
	t.Helper()
	c.Logger = quiet
	l, err := ratelimit.New(c, policies...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func request(user string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("User", user)
	return r
}

// Over all instances nobody is allowed more than the policy says, and another is not refused for him.
func TestFleet(t *testing.T) {
	t.Parallel()
	server := stacktest.StartRedis(t)
	policy := ratelimit.Policy{Name: "user", Limit: 60, Window: time.Hour, Burst: 30, Key: byHeader}
	var allowed atomic.Int64
	var wait sync.WaitGroup
	for range 4 {
		l := newLimiter(t, ratelimit.Config{Redis: clientOf(t, server.Address), Timeout: 10 * time.Second}, policy)
		for range 4 {
			wait.Go(func() {
				for range 50 {
					if l.Take(request("a")).Allowed {
						allowed.Add(1)
					}
				}
			})
		}
	}
	wait.Wait()
	if n := allowed.Load(); n != 30 {
		t.Errorf("%d of 800 requests were allowed, want 30", n)
	}
	l := newLimiter(t, ratelimit.Config{Redis: clientOf(t, server.Address), Timeout: 10 * time.Second}, policy)
	if d := l.Take(request("b")); !d.Allowed || d.Policies()[0].Left != 29 {
		t.Errorf("another user: %+v", d)
	}
	if d := l.Take(request("a")); d.Allowed || d.RetryAfter < 58*time.Second || d.RetryAfter > time.Minute {
		t.Errorf("%+v", d)
	}
	if d := l.Take(request("")); !d.Allowed || len(d.Policies()) != 0 {
		t.Errorf("nobody's request: %+v", d)
	}
}

// Requests are asked for together, and each gets its own answer.
func TestTogether(t *testing.T) {
	t.Parallel()
	server := stacktest.StartRedis(t)
	l := newLimiter(t, ratelimit.Config{Redis: clientOf(t, server.Address), Timeout: 10 * time.Second},
		ratelimit.Policy{Name: "user", Limit: 20, Window: time.Hour, Key: byHeader},
		ratelimit.Policy{Name: "pair", Limit: 1000, Window: time.Hour, Key: func(r *http.Request) string {
			if user := byHeader(r); len(user)%2 == 0 { // half of them are counted by it as well
				return user
			}
			return ""
		}})
	var wait sync.WaitGroup
	for c := range 64 {
		user := strings.Repeat("x", c+1)
		wait.Go(func() {
			for i := range 25 {
				d := l.Take(request(user))
				states := d.Policies()
				if d.Allowed != (i < 20) || len(states) == 0 || states[0].Name != "user" || d.Allowed && states[0].Left != int64(19-i) {
					t.Errorf("user %d, request %d: %+v", c, i, d)
				}
				if d.Allowed && len(user)%2 == 0 && (len(states) != 2 || states[1].Left != int64(999-i)) {
					t.Errorf("user %d, request %d: %+v", c, i, states)
				}
			}
		})
	}
	wait.Wait()
	if n := scripts(t, clientOf(t, server.Address)); n == 0 || n > 64*25/2 {
		t.Errorf("1600 requests took %d scripts", n)
	}
}

// scripts are those that Redis has run.
func scripts(t *testing.T, client rueidis.Client) (n int) {
	t.Helper()
	text, err := client.Do(t.Context(), client.B().Info().Section("commandstats").Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			calls, _, _ := strings.Cut(rest, ",")
			if n, err = strconv.Atoi(calls); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// What somebody else has under a key fails nobody, and the one whose key it is counts from the beginning.
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	server := stacktest.StartRedis(t)
	client := clientOf(t, server.Address)
	l := newLimiter(t, ratelimit.Config{Redis: client, Timeout: 10 * time.Second}, ratelimit.Policy{Name: "user", Limit: 10, Window: time.Hour, Key: byHeader})
	for _, command := range [][]string{{"SET", "limit:user:text", "what"}, {"HSET", "limit:user:hash", "a", "b"}} {
		if err := client.Do(t.Context(), client.B().Arbitrary(command...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	var wait sync.WaitGroup
	for _, user := range []string{"text", "hash", "a", "b"} {
		wait.Go(func() {
			for i := range 10 {
				if d := l.Take(request(user)); !d.Allowed || d.Policies()[0].Left != int64(9-i) {
					t.Errorf("%s, request %d: %+v", user, i, d)
				}
			}
		})
	}
	wait.Wait()
}

// Who leaves is not waited for, and the others of his batch have their answers.
func TestLeaving(t *testing.T) {
	t.Parallel()
	server := stacktest.StartRedis(t)
	// By one of five instances alone there would be one left, and not nine.
	l := newLimiter(t, ratelimit.Config{Redis: clientOf(t, server.Address), Timeout: 10 * time.Second, Instances: func() int { return 5 }}, ratelimit.Policy{Name: "user", Limit: 10, Window: time.Hour, Key: byHeader})
	l.Take(request("warm"))
	server.Pause()
	ctx, cancel := context.WithCancel(t.Context())
	var wait, left sync.WaitGroup
	for i := range 40 {
		user := fmt.Sprint("user", i)
		if i%2 == 0 {
			left.Go(func() { l.Take(request(user).WithContext(ctx)) })
			continue
		}
		wait.Go(func() {
			if d := l.Take(request(user)); !d.Allowed || d.Policies()[0].Left != 9 {
				t.Errorf("%s: %+v", user, d)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	cancel()
	began := time.Now()
	left.Wait()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("who leaves has waited for %v", d)
	}
	server.Resume()
	wait.Wait()
	if d := l.Take(request("user39")); d.Policies()[0].Left != 8 { // by Redis
		t.Errorf("%+v", d)
	}
}

// What one policy refuses the other is not charged for, in Redis as in the process.
func TestAllOrNone(t *testing.T) {
	t.Parallel()
	server := stacktest.StartRedis(t)
	for name, config := range map[string]ratelimit.Config{"Redis": {Redis: clientOf(t, server.Address), Timeout: 10 * time.Second}, "process": {}} {
		l := newLimiter(t, config, ratelimit.Policy{Name: "user", Limit: 100, Window: time.Hour, Key: byHeader},
			ratelimit.Policy{Name: "all", Limit: 3, Window: time.Hour, Key: func(*http.Request) string { return "all" }})
		for i := range 10 {
			if d := l.Take(request("a")); d.Allowed != (i < 3) {
				t.Errorf("%s: request %d: %+v", name, i, d)
			}
		}
		d := l.Take(request("b"))
		// Redis is not asked what is left by the other.
		last := len(d.Policies()) - 1
		if d.Allowed || d.Policies()[last].Name != "all" || !d.Policies()[last].Exceeded || last > 0 && d.Policies()[0].Exceeded {
			t.Errorf("%s: %+v", name, d)
		}
		one := newLimiter(t, config, ratelimit.Policy{Name: "user", Limit: 100, Window: time.Hour, Key: byHeader})
		if name == "Redis" {
			if d := one.Take(request("a")); d.Policies()[0].Left != 96 {
				t.Errorf("%s: after three requests and one there are %d left of 100", name, d.Policies()[0].Left)
			}
		}
	}
}

// draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4, and its problem type.
func TestHeadersDraft(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, ratelimit.Config{Errors: edge.Errors{Log: quiet}}, ratelimit.Policy{Name: "user", Limit: 2, Window: time.Minute, Key: byHeader})
	served := 0
	handler := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
	var rec *httptest.ResponseRecorder
	for range 3 {
		rec = httptest.NewRecorder()
		handler.ServeHTTP(rec, request("a"))
		if got := rec.Header().Get("RateLimit-Policy"); got != `"user";q=2;w=60` {
			t.Errorf("RateLimit-Policy is %s", got)
		}
		if served == 1 && rec.Code == 200 && rec.Header().Get("RateLimit") != `"user";r=1;t=30` {
			t.Errorf("RateLimit is %s", rec.Header().Get("RateLimit"))
		}
	}
	var p struct {
		Type     string
		Violated []string `json:"violated-policies"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if rec.Code != 429 || served != 2 || rec.Header().Get("Retry-After") != "30" || !strings.HasPrefix(rec.Header().Get("RateLimit"), `"user";r=0;t=`) ||
		!strings.HasSuffix(p.Type, "#quota-exceeded") || !slices.Equal(p.Violated, []string{"user"}) {
		t.Errorf("%d, %d served, %v, %s", rec.Code, served, rec.Header(), rec.Body)
	}
	free := httptest.NewRecorder()
	handler.ServeHTTP(free, request(""))
	if free.Code != 200 || free.Header().Get("RateLimit") != "" {
		t.Errorf("nobody's request: %d %v", free.Code, free.Header())
	}
}

// A Redis that dies, stands still, or is behind a network that loses all costs a request no more than the timeout, whatever it is
// counted by, for a while, and then nothing; meanwhile each instance allows its share.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(r *stacktest.Redis, network *faultproxy.Proxy) (end func()){
		"killed": func(r *stacktest.Redis, _ *faultproxy.Proxy) func() {
			r.Kill()
			return func() { r.Start() }
		},
		"paused, and its connections are gone": func(r *stacktest.Redis, _ *faultproxy.Proxy) func() {
			client := clientOf(t, r.Address)
			if err := client.Do(t.Context(), client.B().Arbitrary("CLIENT", "KILL", "TYPE", "normal").Build()).Error(); err != nil {
				t.Error(err)
			}
			r.Pause()
			return r.Resume
		},
		"paused": func(r *stacktest.Redis, _ *faultproxy.Proxy) func() {
			r.Pause()
			return r.Resume
		},
		"blackholed": func(_ *stacktest.Redis, network *faultproxy.Proxy) func() {
			if err := network.Add("hole", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := network.Remove("hole"); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := stacktest.StartRedis(t)
			url, network := stacktest.Proxied(t, "redis://"+server.Address)
			l := newLimiter(t, ratelimit.Config{Redis: clientOf(t, strings.TrimPrefix(url, "redis://")), Instances: func() int { return 4 }, Errors: edge.Errors{Log: quiet}},
				ratelimit.Policy{Name: "user", Limit: 40, Window: time.Hour, Key: byHeader},
				ratelimit.Policy{Name: "all", Limit: 400_000, Window: time.Hour, Key: func(*http.Request) string { return "all" }})
			for range 100 { // until it answers in time, on a machine that does other things
				if d := l.Take(request("warm")); d.Policies()[0].Left >= 30 {
					break
				}
			}
			end := fault(server, network)

			// What a wait of the timeout takes here and now, which is longer.
			measured, late := make(chan struct{}), time.Duration(0)
			var control sync.WaitGroup
			control.Go(func() {
				for {
					began := time.Now()
					select {
					case <-time.After(ratelimit.DefaultTimeout):
						late = max(late, time.Since(began)-ratelimit.DefaultTimeout)
					case <-measured:
						return
					}
				}
			})
			var took []time.Duration
			allowed := 0
			for i := range 500 {
				d := l.Take(request("a"))
				if d.Allowed {
					allowed++
				}
				took = append(took, d.Waited)
				if i%100 == 0 {
					time.Sleep(200 * time.Millisecond) // it is looked for meanwhile
				}
			}
			close(measured)
			control.Wait()
			slices.Sort(took)
			waited := 0
			for _, d := range took {
				if d > 10*time.Millisecond {
					waited++
				}
			}
			longest := took[len(took)-1]
			t.Logf("of 500 requests %d waited, the longest %v, and timers were late by %v; %d were allowed", waited, longest, late, allowed)
			if allowed != 10 {
				t.Errorf("%d were allowed, and a share of 40 over four is 10", allowed)
			}
			if longest > ratelimit.DefaultTimeout+late+150*time.Millisecond { // Redis's client alone would wait for seconds
				t.Errorf("a request waited %v", longest)
			}
			if waited > 50 {
				t.Errorf("%d requests waited for a Redis that was known to be away", waited)
			}
			end()
			limit := time.Now().Add(20 * time.Second)
			for i := 0; ; i++ {
				if d := l.Take(request(fmt.Sprint("later", i))); d.Policies()[0].Left == 39 { // not 9, which is a share's
					break
				}
				if time.Now().After(limit) {
					t.Fatal("it does not count in Redis again")
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

// The answer names the policies that have counted the request, and no others; two limiters, one behind the other, both say theirs.
func TestNamedPolicies(t *testing.T) {
	t.Parallel()
	server := stacktest.StartRedis(t)
	for name, config := range map[string]ratelimit.Config{"Redis": {Redis: clientOf(t, server.Address), Timeout: 10 * time.Second}, "process": {}} {
		config.Errors.Log = quiet
		local := func(r *http.Request) string {
			if ratelimit.FromLoopback(r) {
				return "here"
			}
			return ""
		}
		outer := newLimiter(t, config, ratelimit.Policy{Name: "all", Limit: 100, Window: time.Hour, Key: func(*http.Request) string { return "all" }})
		inner := newLimiter(t, config, ratelimit.Policy{Name: "user", Limit: 2, Window: time.Hour, Key: byHeader}, ratelimit.Policy{Name: "loopback", Limit: 6000, Window: time.Minute, Key: local})
		served := 0
		var began time.Time
		handler := outer.Handler(inner.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ })))
		const all, user, here = `"all";q=100;w=3600`, `"user";q=2;w=3600`, `"loopback";q=6000;w=60`
		for i, of := range []struct {
			user, from, forwarded string
			policies, states      string
			code                  int
		}{
			{"a", "192.0.2.1:9", "", all + ", " + user, `"all";r=99;t=36, "user";r=1;t=1800`, 200},
			{"", "192.0.2.1:9", "", all, `"all";r=98;t=36`, 200},
			{"a", "192.0.2.1:9", "", all + ", " + user, `"all";r=97;t=36, "user";r=0;t=1800`, 200},
			{"a", "192.0.2.1:9", "", all + ", " + user, `"all";r=96;t=36, "user";r=0;t=1800`, 429},
			{"a", "127.0.0.1:9", "", all + ", " + user + ", " + here, `"all";r=95;t=36, "user";r=0;t=1800`, 429},
			{"b", "[::1]:9", "", all + ", " + user + ", " + here, `"all";r=94;t=36, "user";r=1;t=1800, "loopback";r=5999;t=1`, 200},
			{"c", "127.0.0.1:9", "192.0.2.1", all + ", " + user, `"all";r=93;t=36, "user";r=1;t=1800`, 200},
		} {
			r, rec := request(of.user), httptest.NewRecorder()
			r.RemoteAddr = of.from
			if of.forwarded != "" {
				r.Header.Set("X-Forwarded-For", of.forwarded)
			}
			handler.ServeHTTP(rec, r)
			policies, states := strings.Join(rec.Header().Values("RateLimit-Policy"), ", "), strings.Join(rec.Header().Values("RateLimit"), ", ")
			// Seconds may have passed, and who is refused by what Redis counts is told of the others as well.
			if i == 0 {
				began = time.Now()
			}
			late := int(time.Since(began)/time.Second) + 1
			for k := 1; k <= late; k++ {
				states = strings.NewReplacer(fmt.Sprintf("t=%d", 36-k), "t=36", fmt.Sprintf("t=%d", 1800-k), "t=1800").Replace(states)
			}
			states = strings.ReplaceAll(states, `, "loopback";r=6000;t=0`, "")
			if rec.Code != of.code || policies != of.policies || states != of.states {
				t.Errorf("%s: request %d: %d, %s, %s", name, i, rec.Code, policies, states)
			}
		}
		if served != 5 {
			t.Errorf("%s: %d were served", name, served)
		}
	}
}

// A clock that goes back refuses nobody for longer than a window.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	server := stacktest.StartRedis(t)
	client := clientOf(t, server.Address)
	l := newLimiter(t, ratelimit.Config{Redis: client, Timeout: 10 * time.Second}, ratelimit.Policy{Name: "user", Limit: 10, Window: time.Second, Key: byHeader})
	later := fmt.Sprint(time.Now().Add(time.Hour).UnixMicro())
	if err := client.Do(t.Context(), client.B().Set().Key("limit:user:a").Value(later).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if d := l.Take(request("a")); d.Allowed || d.RetryAfter > time.Second {
		t.Errorf("%+v", d)
	}
}

// Who was refused is refused without asking Redis.
func TestDeniedIsRemembered(t *testing.T) {
	t.Parallel()
	server := stacktest.StartRedis(t)
	client := clientOf(t, server.Address)
	l := newLimiter(t, ratelimit.Config{Redis: client, Timeout: 10 * time.Second}, ratelimit.Policy{Name: "user", Limit: 1, Window: time.Hour, Key: byHeader})
	if !l.Take(request("a")).Allowed || l.Take(request("a")).Allowed {
		t.Fatal("not one of two")
	}
	calls := func() string {
		text, err := client.Do(t.Context(), client.B().Info().Section("commandstats").Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "cmdstat_evalsha:") {
				return line[:strings.Index(line, ",")]
			}
		}
		return ""
	}
	before := calls()
	for range 1000 {
		if l.Take(request("a")).Allowed {
			t.Fatal("allowed")
		}
	}
	if after := calls(); after != before {
		t.Errorf("%s before 1000 requests that are refused, %s after", before, after)
	}
}

func TestBadConfigurations(t *testing.T) {
	t.Parallel()
	_, err := ratelimit.New(ratelimit.Config{Timeout: time.Hour, MaxKeys: 1, Prefix: "{x}"},
		ratelimit.Policy{Name: "a b", Limit: -1, Window: time.Nanosecond}, ratelimit.Policy{Name: "x", Limit: 1_000_000_000, Window: time.Second, Key: byHeader},
		ratelimit.Policy{Name: "x", Limit: 1, Window: 24 * time.Hour, Burst: 2, Key: byHeader})
	for _, want := range []string{"Timeout is 1h0m0s", "MaxKeys is 1", `Prefix is "{x}"`, "letters, digits", "Limit is -1", "Key is missing", "more than one in a microsecond", `two policies are named "x"`, "takes longer than 24h0m0s"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	if _, err := ratelimit.New(ratelimit.Config{}); err == nil {
		t.Error("no policies")
	}
}
