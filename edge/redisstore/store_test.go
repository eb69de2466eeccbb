package redisstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/redisstore"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

type shop struct {
	handler http.Handler
	runs    atomic.Int64
}

func newShop(t *testing.T, address string, c redisstore.Config, required bool, handle http.HandlerFunc) *shop {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	c.Logger = quiet
	store, err := redisstore.New(client, c)
	if err != nil {
		t.Fatal(err)
	}
	idempotent, err := edge.Idempotency(edge.IdempotencyConfig{
		Store: store, Principal: func(*http.Request) string { return "jane" }, Errors: edge.Errors{Log: quiet},
		Required: func(*http.Request) bool { return required },
	})
	if err != nil {
		t.Fatal(err)
	}
	s := new(shop)
	s.handler = edge.Recover(edge.Errors{Log: quiet})(idempotent(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := s.runs.Add(1)
		if handle != nil {
			handle(w, r)
			return
		}
		w.Header().Set("Location", fmt.Sprint("/orders/", n))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "order ", n)
	})))
	return s
}

func (s *shop) post(key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body))
	r.Header.Set("Idempotency-Key", key)
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, r)
	return rec
}

// patient is for machines that stand still now and then.
var patient = redisstore.Config{Timeout: 5 * time.Second}

func TestAnswers(t *testing.T) {
	t.Parallel()
	redis := stacktest.StartRedis(t)
	s := newShop(t, redis.Address, patient, true, nil)
	other := newShop(t, redis.Address, patient, true, nil)
	first, again := s.post("k", "tea"), other.post("k", "tea")
	if first.Code != http.StatusCreated || again.Code != http.StatusCreated || again.Body.String() != "order 1" || again.Header().Get("Location") != "/orders/1" ||
		again.Header().Get(edge.ReplayedHeader) != "true" || other.runs.Load() != 0 {
		t.Errorf("%d %s, then %d %s", first.Code, first.Body, again.Code, again.Body)
	}
	if rec := other.post("k", "coffee"); rec.Code != http.StatusUnprocessableEntity {
		t.Errorf("%d", rec.Code)
	}
	short := newShop(t, redis.Address, redisstore.Config{TTL: time.Second, Prefix: "short:", Timeout: patient.Timeout}, true, nil)
	short.post("k", "tea")
	time.Sleep(1200 * time.Millisecond)
	if rec := short.post("k", "tea"); rec.Body.String() != "order 2" {
		t.Errorf("what has expired is given again: %s", rec.Body)
	}
}

// One runs at a time, for longer than a lease; and when it has failed, another may.
func TestLease(t *testing.T) {
	t.Parallel()
	redis := stacktest.StartRedis(t)
	began, end := make(chan struct{}, 9), make(chan string)
	s := newShop(t, redis.Address, redisstore.Config{Lease: 600 * time.Millisecond}, true, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		select {
		case how := <-end:
			if how == "panic" {
				panic("a bug")
			}
			if how == "fail" {
				w.WriteHeader(http.StatusBadGateway)
			}
		case <-r.Context().Done():
			edge.Errors{Log: quiet}.Answer(w, r, context.Cause(r.Context()))
		}
	})
	for _, how := range []string{"fail", "panic", "well"} {
		var wait sync.WaitGroup
		wait.Go(func() { s.post("k", "tea") })
		<-began
		for limit := time.Now().Add(1500 * time.Millisecond); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
			// A machine that stands still for the timeout may be told that Redis is away.
			if rec := s.post("k", "tea"); rec.Code != http.StatusConflict && rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") != "1" {
				t.Errorf("a second one: %d", rec.Code)
			}
		}
		end <- how
		wait.Wait()
	}
	if rec := s.post("k", "tea"); rec.Code != http.StatusOK || rec.Header().Get(edge.ReplayedHeader) != "true" || s.runs.Load() != 3 {
		t.Errorf("%d, %d runs", rec.Code, s.runs.Load())
	}
	// Whose lease is lost is told by his context.
	var rec *httptest.ResponseRecorder
	var wait sync.WaitGroup
	wait.Go(func() { rec = s.post("lost", "tea") })
	<-began
	redis.Kill()
	redis.Start()
	wait.Wait()
	if rec.Code != http.StatusInternalServerError {
		t.Errorf("without its lease: %d", rec.Code)
	}
}

// While Redis is away or does not answer, routes that require a key are refused, and others run, after a bounded wait.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*stacktest.Redis){"killed": (*stacktest.Redis).Kill, "paused": (*stacktest.Redis).Pause} {
		redis := stacktest.StartRedis(t)
		required, not := newShop(t, redis.Address, redisstore.Config{}, true, nil), newShop(t, redis.Address, redisstore.Config{}, false, nil)
		required.post("before", "tea")
		not.post("before", "tea")
		away(redis)
		for range 3 {
			at := time.Now()
			if rec := required.post("k", "tea"); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
				t.Errorf("%s, required: %d", name, rec.Code)
			}
			if rec := not.post("k", "tea"); rec.Code != http.StatusCreated {
				t.Errorf("%s: %d", name, rec.Code)
			}
			if took := time.Since(at); took > 2*time.Second {
				t.Errorf("%s: they waited for %v", name, took)
			}
		}
		if required.runs.Load() != 1 {
			t.Errorf("%s: %d runs", name, required.runs.Load())
		}
		if name == "paused" {
			redis.Resume()
		} else {
			redis.Start()
		}
		for limit := time.Now().Add(20 * time.Second); required.post("after", "tea").Code != http.StatusCreated; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s: it does not recover", name)
			}
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := redisstore.New(nil, redisstore.Config{TTL: 1, Timeout: 20 * time.Second})
	for _, want := range []string{"client", "TTL", "Timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}
