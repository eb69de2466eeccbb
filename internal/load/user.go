package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"reflect"
	"strings"
	"sync"
	"time"
)

// Journey is what one arrival does: a function that makes its requests one after the
// other, and keeps what it learns from the answers in its own variables. It must end
// when ctx does. Its error, like an error of any of its requests, counts the arrival
// as failed.
type Journey func(ctx context.Context, u *User) error

// User is the one who arrived, for the length of a journey. It is not safe for
// concurrent use.
type User struct {
	// ID is the index in the population, or the number of the arrival without one.
	ID int
	// Rand is seeded by the run's seed and the arrival: the same in every run.
	Rand *rand.Rand

	run     *run
	account *account
	step    int
	warm    bool
	failed  bool
	// due is when the next request was to be sent, where something other than the
	// journey's own progress decides that; zero otherwise.
	due time.Time
}

// account is what outlives a journey.
type account struct {
	mu    sync.Mutex
	state map[reflect.Type]any
	jar   *cookiejar.Jar
}

// State gives the user's state of type S, made by init for the first journey that
// asks. With [Config.Users] it is kept from one journey of the user to the next. Two
// journeys of one user may overlap, as two tabs do: S guards itself.
func State[S any](u *User, init func() *S) *S {
	u.account.mu.Lock()
	defer u.account.mu.Unlock()
	key := reflect.TypeFor[S]()
	if s, ok := u.account.state[key]; ok {
		return s.(*S)
	}
	s := init()
	if u.account.state == nil {
		u.account.state = make(map[reflect.Type]any)
	}
	u.account.state[key] = s
	return s
}

// Think waits, as a reader does between two pages. The next request is due at the
// end of the wait, so that a late wake-up counts as lag and in the response time.
func (u *User) Think(ctx context.Context, d time.Duration) error {
	from := u.due
	if from.IsZero() {
		from = time.Now()
	}
	u.due = from.Add(d)
	if !timerWait(ctx, u.due) {
		return context.Cause(ctx)
	}
	return nil
}

// NewRequest makes a request of the target; path begins with a slash.
func (u *User) NewRequest(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(u.run.cfg.Target, "/")+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "loadline")
	return req, nil
}

// start gives the time that a request counts from, and its lag, -1 where it was not
// due at any given time.
//
// The first request counts from the intended start of its arrival, whatever the
// generator did meanwhile, and one after [User.Think] from the end of that. Any other
// counts from now, when its journey wants it: a user who waits for a page does not
// click on it, so that an answer's delay is counted once and not in all that follow.
func (u *User) start() (from time.Time, lag time.Duration) {
	now := time.Now()
	if u.due.IsZero() {
		return now, -1
	}
	from = u.due
	u.due = time.Time{}
	return from, max(0, now.Sub(from))
}

var (
	errTimeout = errors.New("load: time-out")
	errCut     = errors.New("load: cut off by the end of the run")
	errTooLong = errors.New("load: the answer is longer than MaxBody")
)

// Do sends a request and reads the answer, redirects not followed. The route groups
// requests in the report; it names a template ("GET /articles/{slug}") and not a
// page. The response's body is in memory and needs no closing. An answer that
// [Config.Failed] refuses is counted as an error and returned without one.
func (u *User) Do(route string, req *http.Request) (*http.Response, error) {
	from, lag := u.start()
	ctx, cancel := context.WithDeadlineCause(req.Context(), from.Add(u.run.cfg.Timeout), errTimeout)
	defer cancel()
	var asked, got time.Time
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked = time.Now() },
		// Called again when net/http repeats an idempotent request because the server had
		// closed the connection: that is a part of the service, so the first call counts.
		GotConn: func(httptrace.GotConnInfo) {
			if got.IsZero() {
				got = time.Now()
			}
		},
	})
	req = req.Clone(traced)
	if u.account.jar != nil {
		for _, cookie := range u.account.jar.Cookies(req.URL) {
			req.AddCookie(cookie)
		}
	}
	resp, err := u.run.http.RoundTrip(req)
	if err == nil {
		err = buffer(resp, u.run.cfg.MaxBody)
	}
	done := time.Now()

	t := timing{response: done.Sub(from), service: -1, lag: lag, queue: -1}
	if !got.IsZero() {
		t.service, t.queue = done.Sub(got), got.Sub(asked)
	} else if !asked.IsZero() {
		t.queue = done.Sub(asked)
	}
	failure := classify(ctx, err)
	if failure == "" && u.run.cfg.Failed(resp) {
		failure = fmt.Sprintf("status %d", resp.StatusCode)
	}
	u.record(route, t, failure)
	if err != nil {
		if failure == failureTimeout {
			err = errors.Join(errTimeout, err)
		}
		return nil, fmt.Errorf("%s: %w", route, err)
	}
	if u.account.jar != nil {
		u.account.jar.SetCookies(req.URL, resp.Cookies())
	}
	return resp, nil
}

// buffer replaces the body by what it holds.
func buffer(resp *http.Response, limit int64) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return err
	}
	if int64(len(body)) > limit {
		return errTooLong
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// Time records any other operation, such as a query, as a request of the route. Its
// service time is all of op. An op that outlives the time-out counts as timed out,
// whatever it returns.
func (u *User) Time(ctx context.Context, route string, op func(context.Context) error) error {
	from, lag := u.start()
	ctx, cancel := context.WithDeadlineCause(ctx, from.Add(u.run.cfg.Timeout), errTimeout)
	defer cancel()
	began := time.Now()
	err := op(ctx)
	done := time.Now()
	t := timing{response: done.Sub(from), service: done.Sub(began), lag: lag, queue: -1}
	if err == nil && t.response > u.run.cfg.Timeout {
		err = errTimeout
	}
	u.record(route, t, classify(ctx, err))
	if err != nil {
		return fmt.Errorf("%s: %w", route, err)
	}
	return nil
}

func (u *User) record(route string, t timing, failure string) {
	u.failed = u.failed || failure != ""
	if failure == failureTimeout {
		// At the time-out, and not at when this process came to notice.
		t.response = u.run.cfg.Timeout
		t.service = min(t.service, u.run.cfg.Timeout)
	}
	u.run.rec.record(u.step, route, u.warm, t, failure)
}
