package outbound_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/outbound"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service answers as it is told.
type service struct {
	t      *testing.T
	server *httptest.Server
	client *http.Client
	asked  atomic.Int64
	open   atomic.Int64 // connections
}

func newService(t *testing.T, c outbound.Config, answer http.HandlerFunc) *service {
	t.Helper()
	s := &service{t: t}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		answer(w, r)
	}))
	s.server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.open.Add(1)
		}
	}
	s.server.Start()
	t.Cleanup(s.server.Close)
	c.Name = "payments"
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c.Next = transport
	caller, err := outbound.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })
	s.client = &http.Client{Transport: caller}
	return s
}

func (s *service) call(ctx context.Context, method string, header ...string) (int, string, error) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, s.server.URL, strings.NewReader("body"))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// What may be repeated is, with its body; what may not is not.
func TestRepeats(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method string
		header []string
		times  int64
	}{
		{http.MethodGet, nil, 3},
		{http.MethodPut, nil, 3},
		{http.MethodPost, nil, 1},
		{http.MethodPatch, nil, 1},
		{http.MethodPost, []string{edge.IdempotencyKeyHeader, "k"}, 3},
	} {
		s := newService(t, outbound.Config{}, nil)
		s.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body, err := io.ReadAll(r.Body); string(body) != "body" || err != nil {
				t.Errorf("the body is %q, %v", body, err)
			}
			if s.asked.Add(1) < 3 {
				w.WriteHeader(http.StatusBadGateway)
			}
			fmt.Fprint(w, strings.Repeat("x", 1000))
		})
		code, body, err := s.call(t.Context(), test.method, test.header...)
		if err != nil || s.asked.Load() != test.times || (code == http.StatusOK) != (test.times == 3) || len(body) != 1000 {
			t.Errorf("%s %v: %d, %d bytes, %v; asked %d times", test.method, test.header, code, len(body), err, s.asked.Load())
		}
		if s.open.Load() != 1 {
			t.Errorf("%d connections: answers that are not used are not closed", s.open.Load())
		}
	}
}

// An answer that says when to come again is heeded, if that is soon.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for after, times := range map[string]int64{"1": 3, "3600": 1} {
		s := newService(t, outbound.Config{}, nil)
		s.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if s.asked.Add(1) < 3 {
				w.Header().Set("Retry-After", after)
				w.WriteHeader(http.StatusTooManyRequests)
			}
		})
		began := time.Now()
		code, _, err := s.call(t.Context(), http.MethodGet)
		if err != nil || s.asked.Load() != times {
			t.Errorf("after %s s: %d, %v; asked %d times", after, code, err, s.asked.Load())
		}
		if took := time.Since(began); times == 3 && took < 2*time.Second {
			t.Errorf("it came again after %v", took)
		}
	}
}

// Who does not answer is waited for no longer than the timeout, and told how long that is.
func TestTimeout(t *testing.T) {
	t.Parallel()
	s := newService(t, outbound.Config{Timeout: 100 * time.Millisecond, Retries: -1}, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or net/http does not see that its client goes
		<-r.Context().Done()
	})
	began := time.Now()
	_, _, err := s.call(t.Context(), http.MethodGet)
	timeout, ok := errors.AsType[*outbound.TimeoutError](err)
	if !ok || !errors.Is(err, context.DeadlineExceeded) || timeout.HTTPStatus() != http.StatusGatewayTimeout || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, _, err := s.call(ctx, http.MethodGet); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who goes gets %v", err)
	}
	// An answer that has begun may take its time.
	slow := newService(t, outbound.Config{Timeout: 100 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		time.Sleep(300 * time.Millisecond)
		fmt.Fprint(w, "the end")
	})
	if code, body, err := slow.call(t.Context(), http.MethodGet); code != http.StatusOK || body != "the end" || err != nil {
		t.Errorf("%d %q, %v", code, body, err)
	}
}

// A service that fails is not asked for a while, then by a few, and then by all.
func TestBreaker(t *testing.T) {
	t.Parallel()
	var fails atomic.Bool
	fails.Store(true)
	s := newService(t, outbound.Config{Retries: -1, Open: 200 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		if fails.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	for range outbound.DefaultCalls {
		if code, _, err := s.call(t.Context(), http.MethodGet); code != http.StatusInternalServerError || err != nil {
			t.Fatalf("%d, %v", code, err)
		}
	}
	_, _, err := s.call(t.Context(), http.MethodGet)
	open, ok := errors.AsType[*outbound.OpenError](err)
	if !ok || open.HTTPStatus() != http.StatusServiceUnavailable || open.RetryAfter() != time.Second || s.asked.Load() != outbound.DefaultCalls {
		t.Errorf("%v; asked %d times", err, s.asked.Load())
	}
	fails.Store(false)
	time.Sleep(250 * time.Millisecond)
	for range 10 {
		if code, _, err := s.call(t.Context(), http.MethodGet); code != http.StatusOK || err != nil {
			t.Errorf("%d, %v", code, err)
		}
	}
	// A caller who goes says nothing of the service.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * outbound.DefaultCalls {
		_, _, _ = s.call(gone, http.MethodGet)
	}
	if code, _, err := s.call(t.Context(), http.MethodGet); code != http.StatusOK || err != nil {
		t.Errorf("after callers have gone: %d, %v", code, err)
	}
}

// A service that is not asked is not asked again either: who calls is told at once.
func TestOpenIsNotRepeated(t *testing.T) {
	t.Parallel()
	s := newService(t, outbound.Config{Open: time.Minute}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	for range 2 * outbound.DefaultCalls {
		_, _, _ = s.call(t.Context(), http.MethodPost)
	}
	best := time.Hour // a machine may stand still now and then
	for range 5 {
		began := time.Now()
		if _, _, err := s.call(t.Context(), http.MethodGet); err == nil {
			t.Fatal("it is asked")
		}
		best = min(best, time.Since(began))
	}
	if best > 40*time.Millisecond {
		t.Errorf("it took %v to say no", best)
	}
}

// While all fails, repetitions are a share of the calls, and not a multiple.
func TestBudget(t *testing.T) {
	t.Parallel()
	s := newService(t, outbound.Config{Failures: 1, Calls: 100_000, RetryBudget: 0.1}, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(5 * time.Millisecond)
		w.WriteHeader(http.StatusBadGateway)
	})
	const calls, at = 1500, 50
	done := make(chan struct{})
	for range at {
		go func() {
			defer func() { done <- struct{}{} }()
			for range calls / at {
				_, _, _ = s.call(t.Context(), http.MethodGet)
			}
		}()
	}
	for range at {
		<-done
	}
	if again := s.asked.Load() - calls; again < 1 || again > calls/10+10 {
		t.Errorf("%d of %d calls were repeated", again, calls)
	}
}

func TestFallback(t *testing.T) {
	t.Parallel()
	s := newService(t, outbound.Config{Retries: -1, Fallback: func(r *http.Request, err error) (*http.Response, error) {
		if r.Header.Get("None") != "" {
			return nil, err
		}
		rec := httptest.NewRecorder()
		fmt.Fprint(rec, err)
		return rec.Result(), nil
	}}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if code, body, err := s.call(t.Context(), http.MethodGet); code != http.StatusOK || err != nil || !strings.Contains(body, "payments has answered 502") {
		t.Errorf("%d %s, %v", code, body, err)
	}
	if code, _, err := s.call(t.Context(), http.MethodGet, "None", "1"); code != http.StatusBadGateway || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	if s.open.Load() != 1 {
		t.Errorf("%d connections", s.open.Load())
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := outbound.New(outbound.Config{Timeout: -1, RetryBudget: 2})
	for _, want := range []string{"Name", "Timeout", "RetryBudget"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}

// The hot path of a breaker allocates nothing.
func BenchmarkBreakerPermit(b *testing.B) {
	breaker := circuitbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 20, 10*time.Second).Build()
	b.ReportAllocs()
	for b.Loop() {
		if breaker.TryAcquirePermit() {
			breaker.RecordSuccess()
		}
	}
}
