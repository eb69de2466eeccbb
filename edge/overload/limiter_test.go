package overload_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/edge/overload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLimiter(t testing.TB, c overload.Config) *overload.Limiter {
	t.Helper()
	l, err := overload.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func byHeader(r *http.Request) overload.Class {
	for c := range overload.Exempt + 1 {
		if c.String() == r.Header.Get("Class") {
			return c
		}
	}
	return overload.Exempt
}

func request(ctx context.Context, class overload.Class) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.Header.Set("Class", class.String())
	return r
}

// Twice as much is asked for as can be done, with and without: what can be done is done, by those who are most important,
// without waiting long.
func TestTwiceCapacity(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; skipped by -short")
	}
	const (
		workers  = 8
		service  = 40 * time.Millisecond
		capacity = workers * int(time.Second/service) // in a second
		length   = 4 * time.Second
		patience = 2 * time.Second // of clients
	)
	type result struct {
		served, asked map[overload.Class]int
		took          []time.Duration
	}
	measure := func(handler http.Handler, rate int) result {
		r := result{make(map[overload.Class]int), make(map[overload.Class]int), nil}
		var mu sync.Mutex
		var wait sync.WaitGroup
		began := time.Now()
		n := rate * int(length/time.Second)
		for i := range n {
			// Of ten, one is in the background, three are anonymous, four read, two write.
			class := [...]overload.Class{0, 1, 1, 1, 2, 2, 2, 2, 3, 3}[i%10]
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate)))) // open loop
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				rec := httptest.NewRecorder()
				began := time.Now()
				handler.ServeHTTP(rec, request(ctx, class))
				mu.Lock()
				defer mu.Unlock()
				r.asked[class]++
				if rec.Code == http.StatusOK && ctx.Err() == nil {
					r.served[class]++
					r.took = append(r.took, time.Since(began))
				}
			})
		}
		wait.Wait()
		slices.Sort(r.took)
		return r
	}
	newService := func() http.Handler {
		places := make(chan struct{}, workers)
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			places <- struct{}{} // as a pool of connections whose queue has no end
			defer func() { <-places }()
			if r.Context().Err() == nil {
				time.Sleep(service)
			}
		})
	}
	p99 := func(r result) time.Duration { return r.took[len(r.took)*99/100] }
	all := func(m map[overload.Class]int) (n int) {
		for _, of := range m {
			n += of
		}
		return n
	}
	goodput := func(r result) float64 { return float64(all(r.served)) / length.Seconds() / float64(capacity) }

	// Up to three times: a machine that does other things as well serves late what this one would serve in time.
	for try := 1; ; try++ {
		unloaded := measure(newService(), capacity/4)
		without := measure(newService(), 2*capacity)
		limiter := newLimiter(t, overload.Config{Ceiling: 2 * workers, Class: byHeader})
		with := measure(limiter.Handler(newService()), 2*capacity)
		for name, r := range map[string]result{"unloaded": unloaded, "twice, without": without, "twice, with": with} {
			t.Logf("%-15s goodput %3.0f %% of capacity, p50 %v, p99 %v; served %v of %v", name, 100*goodput(r),
				r.took[len(r.took)/2].Round(time.Millisecond), p99(r).Round(time.Millisecond), r.served, r.asked)
		}
		var wrong []string
		if goodput(with) < 0.9 {
			wrong = append(wrong, fmt.Sprintf("goodput is %.0f %% of capacity", 100*goodput(with)))
		}
		if p99(with) > 5*p99(unloaded) {
			wrong = append(wrong, fmt.Sprintf("p99 is %v, and %v without load", p99(with), p99(unloaded)))
		}
		if w := with.served[overload.Writes]; w*100 < with.asked[overload.Writes]*99 {
			wrong = append(wrong, fmt.Sprintf("%d of %d writes were served", w, with.asked[overload.Writes]))
		}
		for class := overload.Background; class < overload.Writes; class++ {
			if share := func(c overload.Class) float64 { return float64(with.served[c]) / float64(with.asked[c]) }; share(class) > share(class+1)+0.05 {
				wrong = append(wrong, fmt.Sprintf("%v were served more often than %v", class, class+1))
			}
		}
		if p99(without) < p99(with) {
			wrong = append(wrong, fmt.Sprintf("without it p99 was %v: that is no overload", p99(without)))
		}
		if len(wrong) == 0 {
			return
		}
		t.Log("try ", try, ": ", strings.Join(wrong, "; "))
		if try == 3 {
			t.Fatal("three times")
		}
	}
}

// Who is shed is told at once, and when to come again.
func TestShed(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, overload.Config{Ceiling: 1, Queue: 4, Wait: 50 * time.Millisecond, Class: byHeader, RetryAfter: 3 * time.Second})
	began, end := make(chan struct{}), make(chan struct{})
	handler := l.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Holds") != "" {
			close(began)
			<-end
		}
	}))
	var wait sync.WaitGroup
	wait.Go(func() {
		r := request(t.Context(), overload.Writes)
		r.Header.Set("Holds", "1")
		handler.ServeHTTP(httptest.NewRecorder(), r)
	})
	<-began
	ask := func(ctx context.Context, class overload.Class) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, request(ctx, class))
		return rec
	}
	rec := ask(t.Context(), overload.Writes)
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") != "3" || !strings.Contains(rec.Body.String(), "more than it can do") {
		t.Errorf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
	if rec := ask(t.Context(), overload.Exempt); rec.Code != http.StatusOK {
		t.Errorf("health is answered with %d", rec.Code)
	}
	// One that waits fills the background's part of the queue, and not that of the others.
	var queue sync.WaitGroup
	queue.Go(func() { ask(t.Context(), overload.Background) })
	time.Sleep(10 * time.Millisecond)
	at := time.Now()
	if rec := ask(t.Context(), overload.Background); rec.Code != http.StatusServiceUnavailable || time.Since(at) > 40*time.Millisecond {
		t.Errorf("a second one in the background: %d after %v", rec.Code, time.Since(at))
	}
	queue.Wait()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if rec := ask(gone, overload.Writes); rec.Code != 499 {
		t.Errorf("who has gone gets %d", rec.Code)
	}
	close(end)
	wait.Wait()
	if rec := ask(t.Context(), overload.Background); rec.Code != http.StatusOK {
		t.Errorf("when there is room: %d", rec.Code)
	}
}

// Whatever becomes of a request, its place is given back.
func TestPlacesAreGivenBack(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, overload.Config{Ceiling: 1, Wait: time.Millisecond, Class: func(*http.Request) overload.Class { return overload.Writes }})
	server := httptest.NewServer(edge.Recover(edge.Errors{Write: func(w http.ResponseWriter, _ *http.Request, p *edge.Problem) { w.WriteHeader(p.Status) }})(l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic(http.ErrAbortHandler)
		case "/hijack":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		case "/flush":
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			fmt.Fprint(w, "flushed")
		case "/error":
			w.WriteHeader(http.StatusBadGateway)
		}
	}))))
	t.Cleanup(server.Close)
	for range 3 {
		for _, path := range []string{"/panic", "/hijack", "/flush", "/error", "/"} {
			answer, err := server.Client().Get(server.URL + path)
			if err != nil {
				continue
			}
			if _, err := io.ReadAll(answer.Body); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
			answer.Body.Close()
			if answer.StatusCode == http.StatusServiceUnavailable {
				t.Errorf("%s finds no place", path)
			}
			time.Sleep(5 * time.Millisecond) // a handler returns after its answer
		}
	}
}

func TestDefaultClass(t *testing.T) {
	t.Parallel()
	for want, headers := range map[overload.Class][]string{
		overload.Background: {"GET", "Sec-Purpose", "prefetch;prerender", "Cookie", "a=b"},
		overload.Anonymous:  {"GET", "Accept", "*/*"},
		overload.Reads:      {"HEAD", "Authorization", "Token x"},
		overload.Writes:     {"POST", "Accept", "*/*"},
	} {
		r := httptest.NewRequest(headers[0], "/", nil)
		for i := 1; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		if got := overload.DefaultClass(r); got != want {
			t.Errorf("%v is %v", headers, got)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := overload.New(overload.Config{Queue: -1})
	for _, want := range []string{"Ceiling", "Queue"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}
