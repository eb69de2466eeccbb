package contract

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

const (
	basePath = "/api"
	// requestTimeout bounds one request; Conduit gives itself 10 s.
	requestTimeout = 15 * time.Second
	// maxAnswer bounds what is read of one answer; the largest lists take about 200 kB.
	maxAnswer = 8 << 20
)

// obj is a JSON object in a request.
type obj map[string]any

// call is one request.
type call struct {
	method string
	// target is the path below the base path, escaped, with its query.
	target string
	token  string
	as     string // the name of the user whose token it is, for failures
	header http.Header
	// body is sent as it is when it is a []byte, and else as JSON; nil is no body.
	body any
	// forgetful keeps from the call what the suite has seen.
	forgetful bool
	// once: it is counted by the application, and must not be repeated.
	once bool
	// undocumented marks a call that the OpenAPI file does not know; additional one that
	// additions.yml knows.
	undocumented bool
	additional   bool
}

// answer is what came back for a call.
type answer struct {
	call   call
	status int
	header http.Header
	body   []byte
	// fault is what in the answer breaks the contract.
	fault error
}

// send makes one call on the next address, or more of a read by a client that is not told anything. It may be used by
// any goroutine.
func (s *suite) send(ctx context.Context, c call) (*answer, error) {
	switch {
	case !s.target.Untold:
		return s.request(ctx, c)
	case c.method == http.MethodGet && !c.once && !c.undocumented && !c.additional:
		return s.readUntold(ctx, c)
	}
	c.forgetful = true
	return s.request(ctx, c)
}

// request makes one request.
func (s *suite) request(ctx context.Context, c call) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()

	var body io.Reader
	switch b := c.body.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, c.method, s.address()+basePath+c.target, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Token "+c.token)
	}
	if seen := s.seen.newest(); seen != "" && !c.forgetful {
		request.Header.Set(causal.HeaderName, seen)
	}
	for name, values := range c.header {
		request.Header[name] = values
	}

	response, err := s.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	s.seen.note(response.Header.Get(causal.HeaderName))
	got := &answer{call: c, status: response.StatusCode, header: response.Header}
	if got.body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer)); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	switch {
	case c.undocumented:
	case c.additional:
		got.fault = s.more.check(c.method, c.target, got.status, got.header, got.body)
	default:
		got.fault = s.spec.check(c.method, c.target, got.status, got.header, got.body)
	}
	return got, nil
}

// do makes one call and reports an answer that breaks the contract.
func (s *suite) do(t *testing.T, c call) *answer {
	t.Helper()
	got, err := s.send(t.Context(), c)
	if err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	if got.fault != nil {
		t.Errorf("%s\nbreaks the contract:\n%v", got, got.fault)
	}
	return got
}

// together makes n calls at once and returns their answers in order.
func (s *suite) together(t *testing.T, n int, build func(i int) call) []*answer {
	t.Helper()
	answers, failures := collect(n, func(i int) (*answer, error) { return s.send(t.Context(), build(i)) })
	for i, got := range answers {
		if failures[i] != nil {
			t.Fatalf("request %d of %d at once: %v", i, n, failures[i])
		}
		if got.fault != nil {
			t.Errorf("%s\nbreaks the contract:\n%v", got, got.fault)
		}
	}
	return answers
}

// collect runs f n times at once.
func collect[T any](n int, f func(i int) (T, error)) ([]T, []error) {
	results, failures := make([]T, n), make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			results[i], failures[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return results, failures
}

func (c call) String() string {
	who := "without a token"
	if c.token != "" {
		who = "as " + cmp.Or(c.as, "somebody")
	}
	return fmt.Sprintf("%s %s%s %s", c.method, basePath, c.target, who)
}

func (a *answer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", a.call)
	for name, values := range a.call.header {
		fmt.Fprintf(&b, "\n  sent %s: %s", name, strings.Join(values, ", "))
	}
	switch body := a.call.body.(type) {
	case nil:
	case []byte:
		fmt.Fprintf(&b, "\n  sent %s", excerpt(body))
	default:
		encoded, _ := json.Marshal(body) // It was encoded before.
		fmt.Fprintf(&b, "\n  sent %s", excerpt(encoded))
	}
	fmt.Fprintf(&b, "\n  got  %d %s", a.status, excerpt(a.body))
	return b.String()
}

func excerpt(b []byte) string {
	const most = 600
	if len(b) > most {
		return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(string(b[:most]), "?"), len(b))
	}
	return string(b)
}

// want ends the test unless the answer has the status.
func (a *answer) want(t *testing.T, status int) *answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("wanted status %d\n%s", status, a)
	}
	return a
}

// wantError ends the test unless the answer is the error {key: [message]}.
// An empty message stands for any.
func (a *answer) wantError(t *testing.T, status int, key, message string) {
	t.Helper()
	a.want(t, status)
	var failure struct {
		Errors map[string][]string `json:"errors"`
	}
	if err := json.Unmarshal(a.body, &failure); err != nil {
		t.Fatalf("decode: %v\n%s", err, a)
	}
	messages := failure.Errors[key]
	if len(messages) == 0 || message != "" && messages[0] != message {
		t.Fatalf("wanted error %q: [%q]\n%s", key, message, a)
	}
}

// decode reads the body of an answer that must have the status.
func decode[T any](t *testing.T, a *answer, status int) T {
	t.Helper()
	a.want(t, status)
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("decode: %v\n%s", err, a)
	}
	return v
}

// at is the target of an article, or of something below it.
func at(slug string, rest ...string) string {
	return "/articles/" + strings.Join(append([]string{url.PathEscape(slug)}, rest...), "/")
}

// list is the target of a list with pairs of query keys and values.
func list(path string, pairs ...string) string {
	query := make(url.Values)
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	return path + "?" + query.Encode()
}
