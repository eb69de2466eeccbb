package causal_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/causal"
)

// service runs a handler behind a session's, whose clients all bring a token or a doubt.
func service(t *testing.T, http2 bool, k causal.Keys, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	h, err := causal.NewHTTP(causal.HTTPConfig{Keys: k, AbsentMeansNew: true, DisableCookie: true})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h.Handler(handler))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if server.EnableHTTP2 = http2; http2 {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server
}

func transport(t *testing.T, base http.RoundTripper) *causal.Transport {
	t.Helper()
	transport, err := causal.NewTransport(causal.TransportConfig{Base: base, Keys: keys(t)})
	if err != nil {
		t.Fatal(err)
	}
	return transport
}

// call has no session if s is nil.
func call(t *testing.T, s *causal.Session, method, url string) *http.Request {
	t.Helper()
	ctx := t.Context()
	if s != nil {
		ctx = causal.WithSession(ctx, s)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, response *http.Response) {
	t.Helper()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Error(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
}

func inDoubt(s *causal.Session) bool {
	_, _, incomplete := s.Mark(7)
	return incomplete
}

// A service sees what its caller has seen, and tells it by header and trailer.
func TestTransport(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		server := service(t, http2, keys(t), func(w http.ResponseWriter, r *http.Request) {
			if !session(r).Token().Equal(causal.NewToken(at(5))) || inDoubt(session(r)) {
				t.Errorf("the service has seen %v", session(r).Token())
			}
			session(r).Add(at(6))
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "text")
			session(r).Add(at(7))
		})
		s := causal.NewSession(causal.NewToken(at(5)))
		r := call(t, s, http.MethodPost, server.URL)
		client := &http.Client{Transport: transport(t, server.Client().Transport)}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if m, _, _ := s.Mark(7); m != at(6) || response.ProtoMajor == 2 != http2 {
			t.Errorf("%s: after the header: %v", response.Proto, m)
		}
		read(t, response)
		if m, _, doubt := s.Mark(7); m != at(7) || doubt {
			t.Errorf("%s: after the trailer: %v, in doubt: %t", response.Proto, m, doubt)
		}
		if len(r.Header) > 0 {
			t.Errorf("%s: the caller's request was changed: %v", response.Proto, r.Header)
		}
		client.CloseIdleConnections()
	}
}

// tripper is the way to a service that is not there.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answered(status int, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: status, ProtoMajor: 1, Header: make(http.Header), Body: body, ContentLength: -1}
}

func TestTransportWithoutSession(t *testing.T) {
	t.Parallel()
	r := call(t, nil, http.MethodPost, "http://service")
	body := io.NopCloser(strings.NewReader("text"))
	response, err := transport(t, tripper(func(got *http.Request) (*http.Response, error) {
		if got != r || len(got.Header) > 0 {
			t.Errorf("another request, or changed: %v", got.Header)
		}
		return answered(http.StatusOK, body), nil
	})).RoundTrip(r)
	if err != nil || response.Body != body {
		t.Errorf("the answer was changed, or %v", err)
	}
}

// The sender fills in a trailer while the body is sent: it must be that of the caller.
func TestTransportKeepsTrailer(t *testing.T) {
	t.Parallel()
	r := call(t, causal.NewSession(causal.NewToken(at(5))), http.MethodPost, "http://service")
	r.Header, r.Trailer = nil, http.Header{"Sum": nil}
	_, err := transport(t, tripper(func(got *http.Request) (*http.Response, error) {
		r.Trailer.Set("Sum", "1")
		if got.Trailer.Get("Sum") != "1" || got.Header.Get(causal.HeaderName) == "" || r.Header != nil {
			t.Errorf("trailer %v, header %v, caller's %v", got.Trailer, got.Header, r.Header)
		}
		return answered(http.StatusOK, http.NoBody), nil
	})).RoundTrip(r)
	if err != nil {
		t.Error(err)
	}
}

// With 101 the body is the connection.
func TestTransportKeepsConnection(t *testing.T) {
	t.Parallel()
	type connection struct {
		io.ReadCloser
		io.Writer
	}
	response, err := transport(t, tripper(func(*http.Request) (*http.Response, error) {
		return answered(http.StatusSwitchingProtocols, connection{http.NoBody, io.Discard}), nil
	})).RoundTrip(call(t, causal.NewSession(causal.Token{}), http.MethodGet, "http://service"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := response.Body.(io.Writer); !ok {
		t.Errorf("cannot be written to: %T", response.Body)
	}
}

// A token that is by none of the keys may have said anything.
func TestTransportOfAnotherKey(t *testing.T) {
	t.Parallel()
	others := keys(t, []byte("another key of at least 16 bytes"))
	for name, flush := range map[string]bool{"header": false, "trailer": true} {
		server := service(t, false, others, func(w http.ResponseWriter, r *http.Request) {
			if flush {
				_ = http.NewResponseController(w).Flush()
			}
			session(r).Add(at(6))
		})
		s := causal.NewSession(causal.Token{})
		response, err := (&http.Client{Transport: transport(t, nil)}).Do(call(t, s, http.MethodGet, server.URL))
		if err != nil {
			t.Fatal(err)
		}
		if flush && inDoubt(s) {
			t.Errorf("%s: in doubt before it", name)
		}
		read(t, response)
		if !inDoubt(s) || !s.Token().IsZero() {
			t.Errorf("%s: in doubt: %t, %v", name, inDoubt(s), s.Token())
		}
	}
}

// A doubt travels to the service, and ends there; what the service does not know is
// told, also to one in doubt.
func TestTransportInDoubt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ before, added, after causal.Token }{
		"a write":            {causal.NewToken(at(5)), causal.NewToken(at(6)), causal.NewToken(at(6))},
		"no token, a write":  {causal.Token{}, causal.NewToken(at(6)), causal.NewToken(at(6))},
		"nothing":            {causal.NewToken(at(5)), causal.Token{}, causal.NewToken(at(5))},
		"a write, somewhere": {causal.NewToken(at(5)), causal.Unknown(), causal.NewToken(at(5)).Merge(causal.Unknown())},
	} {
		server := service(t, false, keys(t), func(_ http.ResponseWriter, r *http.Request) {
			if !inDoubt(session(r)) || !session(r).Token().Equal(test.before) {
				t.Errorf("%s: the service is in doubt: %t, %v", name, inDoubt(session(r)), session(r).Token())
			}
			session(r).Merge(test.added)
		})
		s := causal.NewSession(test.before)
		s.Doubt()
		response, err := (&http.Client{Transport: transport(t, nil)}).Do(call(t, s, http.MethodPost, server.URL))
		if err != nil {
			t.Fatal(err)
		}
		read(t, response)
		if !s.Token().Equal(test.after) {
			t.Errorf("%s: %v, want %v", name, s.Token(), test.after)
		}
	}
}

// Who may have written, and has not been heard to the end, has perhaps said something.
func TestTransportCutOff(t *testing.T) {
	t.Parallel()
	lost := errors.New("connection lost")
	for _, test := range []struct {
		name, method string
		length       int64
		fails, ends  bool
		doubt        bool
	}{
		{name: "a write that failed", method: http.MethodPost, fails: true, doubt: true},
		{name: "a read that failed", method: http.MethodGet, fails: true},
		{name: "a write, closed early", method: http.MethodPost, length: -1, doubt: true},
		{name: "a write, read to the end", method: http.MethodPost, length: -1, ends: true},
		{name: "a write, closed early, with a length", method: http.MethodPost, length: 4},
		{name: "a read, closed early", method: http.MethodGet, length: -1},
	} {
		s := causal.NewSession(causal.Token{})
		response, err := transport(t, tripper(func(*http.Request) (*http.Response, error) {
			if test.fails {
				return nil, lost
			}
			response := answered(http.StatusOK, io.NopCloser(strings.NewReader("text")))
			response.ContentLength = test.length
			return response, nil
		})).RoundTrip(call(t, s, test.method, "http://service"))
		if test.fails != errors.Is(err, lost) {
			t.Errorf("%s: %v", test.name, err)
		}
		if err == nil {
			if test.ends {
				_, _ = io.ReadAll(response.Body)
			}
			_ = response.Body.Close()
		}
		if inDoubt(s) != test.doubt {
			t.Errorf("%s: in doubt: %t", test.name, inDoubt(s))
		}
	}
}

func TestTransportConfig(t *testing.T) {
	t.Parallel()
	if _, err := causal.NewTransport(causal.TransportConfig{}); err == nil || !strings.Contains(err.Error(), "Keys") {
		t.Errorf("%v", err)
	}
}

// closer counts what closes idle connections.
type closer struct {
	tripper
	n int
}

func (c *closer) CloseIdleConnections() { c.n++ }

func TestTransportClosesIdleConnections(t *testing.T) {
	t.Parallel()
	base := new(closer)
	(&http.Client{Transport: transport(t, base)}).CloseIdleConnections()
	(&http.Client{Transport: transport(t, tripper(nil))}).CloseIdleConnections() // has none
	if base.n != 1 {
		t.Errorf("%d times", base.n)
	}
}
