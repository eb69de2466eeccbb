package edge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rs/cors"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/tenancy"
)

// The parts are in the order of the documentation, and an application behind all of them can do what it can without.
func TestChain(t *testing.T) {
	t.Parallel()
	var order []string
	part := func(name string) edge.Middleware {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				order = append(order, name)
				next.ServeHTTP(w, r)
			})
		}
	}
	caching, err := edge.NewCaching(edge.CachingConfig{Policy: func(*http.Request) edge.CachePolicy { return edge.Public() }})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	route := ""
	mux.HandleFunc("GET /articles/{slug}", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		for _, err := range []error{control.SetReadDeadline(time.Now().Add(time.Minute)), control.SetWriteDeadline(time.Now().Add(time.Minute))} {
			if err != nil {
				t.Error(err)
			}
		}
		fmt.Fprint(w, "first")
		if err := control.Flush(); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, " second ", r.PathValue("slug"))
	})
	mux.HandleFunc("GET /socket", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsocket")
	})
	chain, err := edge.Chain(edge.ChainConfig{
		Mux: mux, Errors: edge.Errors{Log: slog.New(slog.DiscardHandler)},
		CORS:      &cors.Options{AllowedOrigins: []string{"https://app.example"}, AllowedMethods: []string{"POST"}},
		Telemetry: part("telemetry"), LimitByAddress: part("limit by address"), Shed: part("shed"),
		Deadline: edge.DeadlineConfig{Route: func(r *http.Request) time.Duration {
			route = edge.RouteOf(r)
			return 0
		}},
		Authenticate: part("authenticate"), CrossOrigin: http.NewCrossOriginProtection(), Tenant: part("tenant"), Limit: part("limit"),
		Session: part("session"), Idempotency: &edge.IdempotencyConfig{Store: new(memory), Principal: func(*http.Request) string { return "" }}, Caching: caching.Handler,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(chain(mux))
	t.Cleanup(server.Close)
	ask := func(method, path string, header ...string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Error(err)
		}
		return answer, string(body)
	}
	answer, body := ask(http.MethodGet, "/articles/tea")
	if body != "first second tea" || route != "GET /articles/{slug}" || answer.Header.Get("X-Request-Id") == "" || answer.Header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.HasPrefix(answer.Header.Get("Cache-Control"), "public") {
		t.Errorf("%q of %q, %v", body, route, answer.Header)
	}
	if want := []string{"telemetry", "limit by address", "shed", "authenticate", "tenant", "limit", "session"}; !slices.Equal(order, want) {
		t.Errorf("the order is %v", order)
	}
	if _, body := ask(http.MethodGet, "/socket"); body != "socket" {
		t.Errorf("%q", body)
	}
	order = nil
	answer, _ = ask(http.MethodOptions, "/articles/tea", "Origin", "https://app.example", "Access-Control-Request-Method", "POST")
	if answer.StatusCode != http.StatusNoContent || answer.Header.Get("Access-Control-Allow-Origin") != "https://app.example" || !slices.Equal(order, []string{"telemetry"}) {
		t.Errorf("a preflight: %d %v, %v", answer.StatusCode, answer.Header, order)
	}
	for name, test := range map[string]struct {
		header []string
		status int
	}{
		"another origin with a cookie":    {[]string{"Sec-Fetch-Site", "cross-site", "Cookie", "a=b"}, http.StatusForbidden},
		"another origin without a cookie": {[]string{"Sec-Fetch-Site", "cross-site"}, http.StatusMethodNotAllowed},
		"the same origin":                 {[]string{"Sec-Fetch-Site", "same-origin", "Cookie", "a=b"}, http.StatusMethodNotAllowed},
	} {
		if answer, body := ask(http.MethodPost, "/articles/tea", test.header...); answer.StatusCode != test.status {
			t.Errorf("%s: %d %s", name, answer.StatusCode, body)
		}
	}
	if _, err := edge.Chain(edge.ChainConfig{Idempotency: &edge.IdempotencyConfig{}}); err == nil {
		t.Error("an idempotency without a store is taken")
	}
}

func TestServerDefaults(t *testing.T) {
	t.Parallel()
	s := &http.Server{IdleTimeout: time.Second}
	edge.ServerDefaults(s)
	if s.ReadHeaderTimeout == 0 || s.MaxHeaderBytes == 0 || s.IdleTimeout != time.Second || s.WriteTimeout != 0 {
		t.Errorf("%v %v %v %v", s.ReadHeaderTimeout, s.MaxHeaderBytes, s.IdleTimeout, s.WriteTimeout)
	}
}

func cachedAnswer(t *testing.T, p edge.CachePolicy, change func(*http.Request), handler http.HandlerFunc) *httptest.ResponseRecorder {
	t.Helper()
	c, err := edge.NewCaching(edge.CachingConfig{Policy: func(*http.Request) edge.CachePolicy { return p }})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if change != nil {
		change(r)
	}
	rec := httptest.NewRecorder()
	c.Handler(handler).ServeHTTP(rec, r)
	return rec
}

// RFC 9213: the CDN is told apart from browsers, which are not told to give what is old. What is somebody's is no CDN's.
func TestRFC9213Targeted(t *testing.T) {
	t.Parallel()
	tagged := func(w http.ResponseWriter, _ *http.Request) {
		edge.SurrogateKeys(w, "article:1", "list, all")
		fmt.Fprint(w, "tea")
	}
	rec := cachedAnswer(t, edge.Public(), nil, tagged)
	h := rec.Header()
	if h.Get("Cache-Control") != "public, max-age=0, s-maxage=30" || h.Get("CDN-Cache-Control") != "max-age=30, stale-while-revalidate=60, stale-if-error=600" ||
		h.Get("Surrogate-Key") != "article%3A1 list%2C+all" || h.Get("Cache-Tag") != "article%3A1,list%2C+all" || !strings.HasPrefix(h.Get("ETag"), `W/"`) ||
		!slices.Contains(h["Vary"], "Authorization") {
		t.Errorf("%v", h)
	}
	for name, change := range map[string]func(*http.Request){
		"credentials": func(r *http.Request) { r.Header.Set("Authorization", "Token x") },
		"a cookie":    func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "a", Value: "b"}) },
		"a session": func(r *http.Request) {
			session := causal.NewSession(causal.Token{})
			session.Add(causal.Mark{System: 1, Timeline: 1, LSN: 1})
			*r = *r.WithContext(causal.WithSession(r.Context(), session))
		},
		"a tenant": func(r *http.Request) {
			ctx, err := tenancy.With(r.Context(), "acme")
			if err != nil {
				t.Error(err)
			}
			*r = *r.WithContext(ctx)
		},
	} {
		h := cachedAnswer(t, edge.Public(), change, tagged).Header()
		if h.Get("Cache-Control") != "private, no-store" || h.Get("CDN-Cache-Control") != "" || h.Get("Surrogate-Key") != "" {
			t.Errorf("%s: %v", name, h)
		}
	}
	for name, test := range map[string]struct {
		policy  edge.CachePolicy
		handler http.HandlerFunc
		want    string
	}{
		"sets a cookie":      {edge.Public(), func(w http.ResponseWriter, _ *http.Request) { http.SetCookie(w, &http.Cookie{Name: "a"}) }, "private, no-store"},
		"an error":           {edge.Public(), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "private, no-store"},
		"nothing is said":    {edge.CachePolicy{}, func(http.ResponseWriter, *http.Request) {}, "private, no-store"},
		"personal":           {edge.Personal(), func(http.ResponseWriter, *http.Request) {}, "private, no-cache"},
		"a browser's":        {edge.CachePolicy{Browser: time.Minute, Immutable: true}, func(http.ResponseWriter, *http.Request) {}, "private, max-age=60, immutable"},
		"the handler's word": {edge.Public(), func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "max-age=1") }, "max-age=1"},
	} {
		if got := cachedAnswer(t, test.policy, nil, test.handler).Header().Get("Cache-Control"); got != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	many := cachedAnswer(t, edge.Public(), nil, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 10_000 {
			edge.SurrogateKeys(w, fmt.Sprint("tag:", i))
		}
	})
	if got := many.Header(); len(got.Get("Surrogate-Key")) > 16<<10 || got.Get("Cache-Control") != "no-store" {
		t.Errorf("%d bytes of keys, and %q", len(got.Get("Surrogate-Key")), got.Get("Cache-Control"))
	}
}

// RFC 9110, section 13.1.2.
func TestRFC9110IfNoneMatch(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("tea ", 1000)
	write := func(w http.ResponseWriter, _ *http.Request) {
		for range 4 {
			_, _ = io.WriteString(w, body[:len(body)/4])
		}
	}
	first := cachedAnswer(t, edge.Personal(), nil, write)
	etag := first.Header().Get("ETag")
	if first.Body.String() != body || etag == "" || first.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Fatalf("%d bytes, %v", first.Body.Len(), first.Header())
	}
	for said, status := range map[string]int{
		etag: 304, `"x", ` + etag: 304, strings.TrimPrefix(etag, "W/"): 304, "*": 304, `"x"`: 200, "": 200, `W/`: 200, `"unended`: 200, ",,,": 200, etag + ", rubbish": 304,
	} {
		rec := cachedAnswer(t, edge.Personal(), func(r *http.Request) { r.Header.Set("If-None-Match", said) }, write)
		if rec.Code != status || status == 304 && rec.Body.Len() > 0 || rec.Header().Get("ETag") != etag {
			t.Errorf("%s: %d, %d bytes", said, rec.Code, rec.Body.Len())
		}
	}
	own := cachedAnswer(t, edge.Personal(), func(r *http.Request) { r.Header.Set("If-None-Match", `"7"`) }, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `W/"7"`)
		write(w, r)
	})
	if own.Code != http.StatusNotModified || own.Body.Len() > 0 {
		t.Errorf("%d, %d bytes", own.Code, own.Body.Len())
	}
	long := cachedAnswer(t, edge.Personal(), nil, func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			_, _ = w.Write(make([]byte, 200<<10))
		}
	})
	if long.Body.Len() != 600<<10 || long.Header().Get("ETag") != "" {
		t.Errorf("%d bytes, %v", long.Body.Len(), long.Header())
	}
	stream := cachedAnswer(t, edge.Personal(), nil, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "one ")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, "two")
	})
	if stream.Body.String() != "one two" || !stream.Flushed {
		t.Errorf("%q, flushed %t", stream.Body, stream.Flushed)
	}
}

// What a handler has given up, or taken back, is nothing for a CDN.
func TestNotKept(t *testing.T) {
	t.Parallel()
	quiet := edge.Errors{Log: slog.New(slog.DiscardHandler)}
	c, err := edge.NewCaching(edge.CachingConfig{Policy: func(*http.Request) edge.CachePolicy { return edge.Public() }})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		status  int
		handler http.HandlerFunc
	}{
		"nothing by the deadline": {http.StatusGatewayTimeout, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		"a part by the deadline": {http.StatusOK, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "a part")
			<-r.Context().Done()
		}},
		"a part, and an error": {http.StatusOK, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "a part")
			http.Error(w, "it has failed", http.StatusInternalServerError)
		}},
		"a panic": {http.StatusInternalServerError, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "a part")
			panic("a bug")
		}},
	} {
		rec := httptest.NewRecorder()
		edge.Recover(quiet)(edge.Deadline(edge.DeadlineConfig{Default: 50 * time.Millisecond, Errors: quiet})(c.Handler(test.handler))).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
		if h := rec.Header(); rec.Code != test.status || !strings.Contains(h.Get("Cache-Control"), "no-store") || h.Get("CDN-Cache-Control") != "" || h.Get("ETag") != "" {
			t.Errorf("%s: %d %v %s", name, rec.Code, h, rec.Body)
		}
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	var batches []int
	c, err := edge.NewCaching(edge.CachingConfig{
		Policy: func(*http.Request) edge.CachePolicy { return edge.NoStore },
		Purge: func(_ context.Context, keys []string) error {
			batches = append(batches, len(keys))
			return errors.New("not reached")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Purge(t.Context(), make([]string, 300)...); err == nil || !slices.Equal(batches, []int{256, 44}) {
		t.Errorf("%v, %v", batches, err)
	}
	if _, err := edge.NewCaching(edge.CachingConfig{}); err == nil {
		t.Error("no policy is taken")
	}
}

func TestStatic(t *testing.T) {
	t.Parallel()
	s, err := edge.NewStatic(fstest.MapFS{
		"app.js": {Data: []byte("plain")}, "app.js.br": {Data: []byte("brotli")}, "app.js.gz": {Data: []byte("gzip")}, "index.html": {Data: []byte("<p>")}, "sub/x.css": {Data: []byte("p{}")},
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		return rec
	}
	hashed := "/" + s.Path("app.js")
	rec := ask(hashed, "Accept-Encoding", "gzip;q=0.5, br")
	if rec.Body.String() != "brotli" || rec.Header().Get("Content-Encoding") != "br" || !strings.Contains(rec.Header().Get("Cache-Control"), "immutable") ||
		!strings.HasPrefix(rec.Header().Get("Content-Type"), "text/javascript") || rec.Header().Get("Vary") != "Accept-Encoding" {
		t.Errorf("%s %v", rec.Body, rec.Header())
	}
	etag := rec.Header().Get("ETag")
	for accept, want := range map[string]string{"gzip, br;q=0": "gzip", "": "plain", "identity": "plain", "br;q=rubbish": "plain"} {
		if rec := ask("/app.js", "Accept-Encoding", accept); rec.Body.String() != want || rec.Header().Get("Cache-Control") != "public, no-cache" || rec.Header().Get("ETag") == etag {
			t.Errorf("%q: %s %v", accept, rec.Body, rec.Header())
		}
	}
	if rec := ask(hashed, "Accept-Encoding", "br", "If-None-Match", etag); rec.Code != http.StatusNotModified {
		t.Errorf("%d", rec.Code)
	}
	if rec := ask("/app.js", "Range", "bytes=1-2"); rec.Code != http.StatusPartialContent || rec.Body.String() != "la" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	for path, status := range map[string]int{"/": 200, "/sub/x.css": 200, "/sub": 404, "/../etc/passwd": 404, "/app.0.js": 404} {
		if rec := ask(path); rec.Code != status {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
	if s.Path("none.js") != "none.js" || s.Path("/sub/x.css") == "sub/x.css" {
		t.Errorf("%s, %s", s.Path("none.js"), s.Path("/sub/x.css"))
	}
}

// Headers of strangers.
func FuzzIfNoneMatch(f *testing.F) {
	f.Add(`W/"a", "b"`, "gzip;q=1, br")
	f.Fuzz(func(t *testing.T, match, accept string) {
		rec := cachedAnswer(t, edge.Personal(), func(r *http.Request) { r.Header["If-None-Match"] = []string{match} }, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "tea") })
		if rec.Code != http.StatusOK && rec.Code != http.StatusNotModified {
			t.Errorf("%d", rec.Code)
		}
		s, err := edge.NewStatic(fstest.MapFS{"a": {Data: []byte("a")}, "a.gz": {Data: []byte("b")}})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "/a", nil)
		r.Header["Accept-Encoding"] = []string{accept}
		s.ServeHTTP(httptest.NewRecorder(), r)
	})
}
