package causal_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loadlinehq/loadline/causal"
)

var key = []byte("0123456789abcdef0123456789abcdef")

func keys(t testing.TB, secrets ...[]byte) causal.Keys {
	t.Helper()
	if len(secrets) == 0 {
		secrets = [][]byte{key}
	}
	k, err := causal.NewKeys(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func at(lsn causal.LSN) causal.Mark { return causal.Mark{System: 7, Timeline: 1, LSN: lsn} }

// serve runs a handler behind the session's, on a real server, and makes one request.
func serve(t *testing.T, change func(*causal.HTTPConfig), handler http.HandlerFunc, request func(*http.Request)) *http.Response {
	t.Helper()
	c := causal.HTTPConfig{Keys: keys(t), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	h, err := causal.NewHTTP(c)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h.Handler(handler))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if request != nil {
		request(r)
	}
	response, err := server.Client().Do(r)
	if err != nil {
		return nil
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response
}

func session(r *http.Request) *causal.Session { return causal.FromContext(r.Context()) }

func with(mark causal.Mark, t *testing.T) func(*http.Request) {
	signed := keys(t).Sign(causal.NewToken(mark))
	return func(r *http.Request) { r.Header.Set(causal.HeaderName, signed) }
}

// What the handler has written is told before the first byte, however that is sent.
func TestTold(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"header":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) },
		"hints": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
		},
		"body":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "text") },
		"flush":   func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
		"control": func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() },
		"copy":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("text")) },
		"readfrom": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.(io.ReaderFrom).ReadFrom(struct{ io.Reader }{strings.NewReader("text")})
		},
	} {
		response := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
			session(r).Add(at(5))
			answer(w, r)
		}, nil)
		token, err := keys(t).Verify(response.Header.Get(causal.HeaderName))
		if err != nil || !token.Equal(causal.NewToken(at(5))) {
			t.Errorf("%s: %v, %v", name, token, err)
		}
		cookies := response.Cookies()
		if len(cookies) != 1 || cookies[0].Value != response.Header.Get(causal.HeaderName) || !cookies[0].Secure || !cookies[0].HttpOnly || cookies[0].MaxAge != 86400 {
			t.Errorf("%s: cookies %v", name, cookies)
		}
		if response.Header.Get("Cache-Control") != "private" {
			t.Errorf("%s: Cache-Control %q", name, response.Header.Get("Cache-Control"))
		}
	}
}

// What comes before the answer is not the answer, which has all that was written after.
func TestHintsDoNotTell(t *testing.T) {
	t.Parallel()
	var hinted []string
	response := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		session(r).Add(at(5))
		w.WriteHeader(http.StatusEarlyHints)
		session(r).Add(at(6))
	}, func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, header textproto.MIMEHeader) error {
			hinted = append(hinted, header.Get(causal.HeaderName))
			return nil
		}}))
	})
	token, err := keys(t).Verify(response.Header.Get(causal.HeaderName))
	if err != nil || !token.Equal(causal.NewToken(at(6))) || len(hinted) != 1 || hinted[0] != "" || len(response.Trailer) > 0 {
		t.Errorf("%v, %v, hinted %q, trailer %v", token, err, hinted, response.Trailer)
	}
}

// The server's own abilities are reached through the answer.
func TestUnwrap(t *testing.T) {
	t.Parallel()
	reached := false
	serve(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		control := http.NewResponseController(w)
		reached = true
		if err := errors.Join(control.SetWriteDeadline(time.Now().Add(time.Minute)), control.SetReadDeadline(time.Now().Add(time.Minute)), control.EnableFullDuplex()); err != nil {
			t.Error(err)
		}
	}, nil)
	if !reached {
		t.Error("not served")
	}
}

// A handler knows better who may keep its answer.
func TestCacheControlIsKept(t *testing.T) {
	t.Parallel()
	response := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		session(r).Add(at(5))
		w.Header().Set("Cache-Control", "no-store")
	}, nil)
	if got := response.Header.Values("Cache-Control"); !slices.Equal(got, []string{"no-store"}) || response.Header.Get(causal.HeaderName) == "" {
		t.Errorf("%v", response.Header)
	}
}

func TestUnchangedIsNotTold(t *testing.T) {
	t.Parallel()
	response := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		session(r).Add(at(5)) // seen already
		w.WriteHeader(http.StatusNoContent)
	}, with(at(6), t))
	if len(response.Cookies()) > 0 || response.Header.Get(causal.HeaderName) != "" || response.Header.Get("Cache-Control") != "" {
		t.Errorf("%v", response.Header)
	}
}

// A write after the first byte is told at the end.
func TestTrailer(t *testing.T) {
	t.Parallel()
	response := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		session(r).Add(at(5))
	}, nil)
	token, err := keys(t).Verify(response.Trailer.Get(causal.HeaderName))
	if err != nil || !token.Equal(causal.NewToken(at(5))) || response.Header.Get(causal.HeaderName) != "" {
		t.Errorf("%v, %v, %v", token, err, response.Header)
	}
}

// Who has been told of more by the header is told at the end that it was too much.
func TestTrailerTakesBack(t *testing.T) {
	t.Parallel()
	other := causal.Mark{System: 8, Timeline: 1, LSN: 1}
	response := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		session(r).Add(other)
		_ = http.NewResponseController(w).Flush()
		session(r).Forget(other)
	}, with(at(5), t))
	if token, err := keys(t).Verify(response.Trailer.Get(causal.HeaderName)); err != nil || !token.Equal(causal.NewToken(at(5))) {
		t.Errorf("%v, %v", token, err)
	}
}

// A client whose write was followed by a panic is told of it by whoever answers that.
func TestPanicIsTold(t *testing.T) {
	t.Parallel()
	h, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys(t)})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		panics any
		before http.HandlerFunc
		told   bool
	}{
		"before the header": {panics: "oops", before: func(http.ResponseWriter, *http.Request) {}, told: true},
		"aborted":           {panics: http.ErrAbortHandler, before: func(http.ResponseWriter, *http.Request) {}, told: true},
		"after the header":  {panics: "oops", before: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "text") }},
	} {
		w := httptest.NewRecorder()
		func() {
			defer func() {
				if caught := recover(); caught != test.panics {
					t.Errorf("%s: caught %v", name, caught)
				}
				w.WriteHeader(http.StatusInternalServerError)
			}()
			h.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				test.before(w, r)
				session(r).Add(at(5))
				panic(test.panics)
			})).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
		}()
		token, err := keys(t).Verify(w.Result().Header.Get(causal.HeaderName))
		if err != nil || token.IsZero() == test.told {
			t.Errorf("%s: %v, %v", name, token, err)
		}
	}
}

// Header and cookie are merged; whoever brings nothing, or nothing of worth, may have
// seen anything.
func TestBegin(t *testing.T) {
	t.Parallel()
	other := keys(t, []byte("another key of at least 16 bytes")).Sign(causal.NewToken(at(9)))
	rotated := keys(t, []byte("the key that comes after the old"), key)
	cookie := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: causal.HeaderName, Value: value}) }
	}
	for _, test := range []struct {
		name       string
		change     func(*causal.HTTPConfig)
		request    func(*http.Request)
		lsn        causal.LSN
		incomplete bool
		replaced   bool
	}{
		{name: "nothing", incomplete: true},
		{name: "nothing, from a browser", change: func(c *causal.HTTPConfig) { c.AbsentMeansNew = true }},
		{name: "header", request: with(at(5), t), lsn: 5},
		{name: "cookie", request: cookie(keys(t).Sign(causal.NewToken(at(6)))), lsn: 6},
		{name: "both", request: func(r *http.Request) {
			with(at(5), t)(r)
			cookie(keys(t).Sign(causal.NewToken(at(6))))(r)
		}, lsn: 6},
		{
			name: "a cookie that is not asked for", change: func(c *causal.HTTPConfig) { c.DisableCookie = true },
			request: cookie(keys(t).Sign(causal.NewToken(at(6)))), incomplete: true,
		},
		{name: "another's key", request: cookie(other), incomplete: true, replaced: true},
		{
			name: "another's key, from a browser", change: func(c *causal.HTTPConfig) { c.AbsentMeansNew = true },
			request: cookie(other), incomplete: true, replaced: true,
		},
		{name: "an old key", change: func(c *causal.HTTPConfig) { c.Keys = rotated }, request: with(at(5), t), lsn: 5},
		{name: "too many", request: func(r *http.Request) {
			for range 10 {
				r.Header.Add(causal.HeaderName, keys(t).Sign(causal.NewToken(at(5))))
			}
		}, lsn: 5, incomplete: true, replaced: true},
		{name: "lines that a proxy has joined", request: func(r *http.Request) {
			signed := func(lsn causal.LSN) string { return keys(t).Sign(causal.NewToken(at(lsn))) }
			r.Header.Add(causal.HeaderName, signed(5)+", "+signed(6)+",")
			r.Header.Add(causal.HeaderName, signed(4)+","+signed(3))
		}, lsn: 6},
		{name: "one of joined lines is another's", request: func(r *http.Request) {
			r.Header.Set(causal.HeaderName, keys(t).Sign(causal.NewToken(at(5)))+", "+other)
		}, lsn: 5, incomplete: true, replaced: true},
		{name: "too many, joined", request: func(r *http.Request) {
			var joined []string
			for lsn := range causal.LSN(10) {
				joined = append(joined, keys(t).Sign(causal.NewToken(at(lsn+1))))
			}
			r.Header.Set(causal.HeaderName, strings.Join(joined, ", "))
		}, lsn: 4, incomplete: true, replaced: true},
		{name: "too long", request: func(r *http.Request) { r.Header.Set(causal.HeaderName, strings.Repeat("a", 4000)) }, incomplete: true, replaced: true},
	} {
		response := serve(t, test.change, func(_ http.ResponseWriter, r *http.Request) {
			m, _, incomplete := session(r).Mark(7)
			if m.LSN != test.lsn || incomplete != test.incomplete {
				t.Errorf("%s: %v, incomplete: %t", test.name, m, incomplete)
			}
			if session(r).Token().Incomplete() != test.replaced {
				t.Errorf("%s: the doubt would travel", test.name)
			}
		}, test.request)
		if replaced := len(response.Cookies()) == 1; replaced != test.replaced {
			t.Errorf("%s: replaced: %t", test.name, replaced)
		}
	}
}

// faulty is a store that can be away.
type faulty struct {
	causal.Store
	away  bool
	saves int
}

func (f *faulty) Load(ctx context.Context, principal string) (causal.Token, error) {
	if f.away {
		return causal.Token{}, errors.New("away")
	}
	return f.Store.Load(ctx, principal)
}

func (f *faulty) Save(ctx context.Context, principal string, t causal.Token) error {
	f.saves++
	if f.away {
		return errors.New("away")
	}
	return f.Store.Save(ctx, principal, t)
}

// A client that keeps nothing is known by who it is. When the store is away it reads
// the primary, for as long as that lasts.
func TestStore(t *testing.T) {
	t.Parallel()
	memory, err := causal.NewMemory(causal.MemoryConfig{TTL: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	store := &faulty{Store: memory}
	change := func(c *causal.HTTPConfig) {
		c.Store, c.Principal = store, func(r *http.Request) string { return r.Header.Get("User") }
	}
	as := func(user string) func(*http.Request) { return func(r *http.Request) { r.Header.Set("User", user) } }
	check := func(user string, lsn causal.LSN, incomplete bool) {
		t.Helper()
		serve(t, change, func(_ http.ResponseWriter, r *http.Request) {
			if m, _, doubt := session(r).Mark(7); m.LSN != lsn || doubt != incomplete {
				t.Errorf("%s: %v, incomplete: %t", user, m, doubt)
			}
		}, as(user))
	}
	check("ann", 0, true) // an earlier process may have known her
	time.Sleep(2 * time.Second)
	serve(t, change, func(w http.ResponseWriter, r *http.Request) {
		session(r).Add(at(5))
		w.WriteHeader(http.StatusOK)
		if kept, _ := memory.Load(r.Context(), "ann"); !kept.Equal(causal.NewToken(at(5))) {
			t.Errorf("told before it is stored: %v", kept)
		}
		session(r).Add(at(6)) // for the trailer
	}, as("ann"))
	check("ann", 6, false)
	check("", 0, true)
	serve(t, change, func(_ http.ResponseWriter, r *http.Request) {
		session(r).Add(at(7))
		panic(http.ErrAbortHandler)
	}, as("ann"))
	check("ann", 7, false)
	store.away = true
	check("ann", 0, true)
	store.saves = 0
	response := serve(t, change, func(_ http.ResponseWriter, r *http.Request) { session(r).Add(at(8)) }, as("ann"))
	if token, err := keys(t).Verify(response.Header.Get(causal.HeaderName)); err != nil || token.Incomplete() || store.saves != 2 {
		t.Errorf("%v, %v, %d saves", token, err, store.saves)
	}
}

// Who registers is somebody from the next request on, and has seen himself being made.
func TestIdentify(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory, err := causal.NewMemory(causal.MemoryConfig{TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // what was before it is over
		h, err := causal.NewHTTP(causal.HTTPConfig{
			Keys: keys(t), Store: memory, Principal: func(r *http.Request) string { return r.Header.Get("User") },
		})
		if err != nil {
			t.Fatal(err)
		}
		request := func(user string, handler http.HandlerFunc) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
			r.Header.Set("User", user)
			h.Handler(handler).ServeHTTP(httptest.NewRecorder(), r)
		}
		kept := func(user string, want causal.Token) {
			t.Helper()
			if got, err := memory.Load(t.Context(), user); err != nil || !got.Equal(want) {
				t.Errorf("%s: %v, %v, want %v", user, got, err, want)
			}
		}
		request("", func(_ http.ResponseWriter, r *http.Request) {
			session(r).Add(at(5))
			session(r).Identify("ann")
		})
		kept("ann", causal.NewToken(at(5)))
		// Who turns out to be another, without having written: that one comes to know what
		// the first has seen.
		request("ann", func(_ http.ResponseWriter, r *http.Request) { session(r).Identify("bob") })
		kept("bob", causal.NewToken(at(5)))
		// After the first byte.
		request("", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("x"))
			session(r).Add(at(6))
			session(r).Identify("eve")
		})
		kept("eve", causal.NewToken(at(6)))
		request("", func(_ http.ResponseWriter, r *http.Request) { session(r).Identify("dan") })
		kept("dan", causal.Token{})
	})
}

// A connection that is taken over belongs to its new owner; what was written until
// then is stored.
func TestHijack(t *testing.T) {
	t.Parallel()
	memory, err := causal.NewMemory(causal.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	response := serve(t, func(c *causal.HTTPConfig) {
		c.Store, c.Principal = memory, func(*http.Request) string { return "ann" }
	}, func(w http.ResponseWriter, r *http.Request) {
		session(r).Add(at(5))
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		session(r).Add(at(6))
		_, _ = conn.Write([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
	}, nil)
	if response == nil || response.StatusCode != http.StatusNoContent || response.Header.Get(causal.HeaderName) != "" {
		t.Errorf("%+v", response)
	}
	for limit := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		kept, _ := memory.Load(t.Context(), "ann")
		if mark, _ := kept.Mark(7); mark.LSN == 6 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("stored: %v", kept)
		}
	}
}

func TestHTTPConfig(t *testing.T) {
	t.Parallel()
	_, err := causal.NewHTTP(causal.HTTPConfig{Principal: func(*http.Request) string { return "" }, StoreTimeout: -1})
	for _, want := range []string{"Keys", "Principal", "StoreTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// A name that a cookie cannot have is named at the start: net/http would leave the
// cookie out without a word.
func TestCookieName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "t", "__Host-token", "a!#$%&'*+-.^_`|~9"} {
		if err := (causal.HTTPConfig{Keys: keys(t), CookieName: name}).Validate(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"a b", "a;b", "a=b", "a,b", "a\"b", "a(", "a/b", "a\x00", "a\x7f", "naïve", "a\xff"} {
		err := (causal.HTTPConfig{Keys: keys(t), CookieName: name}).Validate()
		if err == nil || !strings.Contains(err.Error(), "CookieName") || !strings.Contains(err.Error(), "at byte") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Tokens are kept for their time, or the store says that it cannot tell.
func TestMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, err := causal.NewMemory(causal.MemoryConfig{TTL: time.Minute, MaxEntries: 8})
		if err != nil {
			t.Fatal(err)
		}
		save := func(who string, lsn causal.LSN) {
			if err := m.Save(t.Context(), who, causal.NewToken(at(lsn))); err != nil {
				t.Fatal(err)
			}
		}
		want := func(who string, token causal.Token) {
			t.Helper()
			if got, err := m.Load(t.Context(), who); err != nil || !got.Equal(token) {
				t.Errorf("%s: %v, %v, want %v", who, got, err, token)
			}
		}
		save("ann", 5)
		save("ann", 4)
		want("ann", causal.NewToken(at(5)).Merge(causal.Unknown()))
		want("bob", causal.Unknown()) // an earlier process may have known him
		time.Sleep(time.Minute)
		want("bob", causal.Token{})
		save("ann", 3)
		for _, who := range strings.Split("cdefghijklm", "") {
			save(who, 1)
		}
		want("ann", causal.Unknown()) // was dropped before its time
		want("bob", causal.Unknown())
		want("m", causal.NewToken(at(1)).Merge(causal.Unknown()))
		time.Sleep(time.Minute)
		want("bob", causal.Token{})
		save("n", 1) // turns
		want("m", causal.NewToken(at(1)))
		time.Sleep(time.Minute)
		save("o", 1)
		want("m", causal.Token{})
	})
}

func BenchmarkHandler(b *testing.B) {
	h, err := causal.NewHTTP(causal.HTTPConfig{Keys: keys(b)})
	if err != nil {
		b.Fatal(err)
	}
	handler := h.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set(causal.HeaderName, keys(b).Sign(causal.NewToken(at(5))))
	b.ReportAllocs()
	for b.Loop() {
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
}
