package realtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/centrifugal/centrifuge"
)

// Handler serves clients:
//
//	GET  /websocket      WebSocket
//	GET  /sse            server-sent events, also by POST
//	POST /stream         HTTP streaming
//	POST /emulation      what clients of these two send
//	POST /poll           long polling; see package realtime/js for its form
//	POST /publish        what clients that poll send
//	GET  /realtime.js    the browser's module
//
// Its connections are open for long: put it beside what bounds requests in time, and compresses answers.
func (g *Gateway) Handler() http.Handler {
	ping := centrifuge.PingPongConfig{PingInterval: g.c.Ping, PongTimeout: g.c.Ping / 3}
	// Buffers are small, for most connections are idle, and their stacks as well: see docs/realtime.md for what that saves.
	ws := centrifuge.NewWebsocketHandler(g.node, centrifuge.WebsocketConfig{
		CheckOrigin:    func(*http.Request) bool { return true }, // it was checked
		ReadBufferSize: 512, UseWriteBufferPool: true, ProcessCommandsOffReadLoop: true,
		MessageSizeLimit: g.c.MaxMessageBytes, PingPongConfig: ping, WriteTimeout: writeTimeout,
	})
	sse := centrifuge.NewSSEHandler(g.node, centrifuge.SSEConfig{PingPongConfig: ping, MaxRequestBodySize: g.c.MaxMessageBytes})
	stream := centrifuge.NewHTTPStreamHandler(g.node, centrifuge.HTTPStreamConfig{PingPongConfig: ping, MaxRequestBodySize: g.c.MaxMessageBytes})
	emulation := centrifuge.NewEmulationHandler(g.node, centrifuge.EmulationConfig{MaxRequestBodySize: g.c.MaxMessageBytes})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /websocket", g.connects(func(w http.ResponseWriter, r *http.Request, c *client) {
		// The connection outlives the request, and need not keep what is in its context.
		ws.ServeHTTP(w, r.WithContext(withClient(context.Background(), c)))
	}))
	streams := func(h http.Handler) http.HandlerFunc {
		return g.connects(func(w http.ResponseWriter, r *http.Request, c *client) {
			body, ok := g.body(w, r)
			if !ok {
				return
			}
			r = r.WithContext(withClient(r.Context(), c))
			r.Body = io.NopCloser(bytes.NewReader(body))
			unbounded(w)
			h.ServeHTTP(w, r)
		})
	}
	mux.HandleFunc("GET /sse", streams(sse))
	mux.HandleFunc("POST /sse", streams(sse))
	mux.HandleFunc("POST /stream", streams(stream))
	mux.Handle("POST /emulation", emulation) // who knows a session's id has it
	mux.HandleFunc("POST /poll", g.poll)
	mux.HandleFunc("POST /publish", g.publishOnce)
	mux.HandleFunc("GET /realtime.js", script)
	return g.fromHere(mux)
}

const (
	// readTimeout is for a body, and writeTimeout for what is brought to who comes back.
	readTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
)

// body reads what a client sends, or answers it.
func (g *Gateway) body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(g.c.MaxMessageBytes)))
	if err != nil {
		refuse(w, http.StatusBadRequest, "the body is too long, or does not come")
	}
	return body, err == nil
}

// unbounded takes a server's timeouts off a connection that stays.
func unbounded(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // what has none cannot end by it
	_ = c.SetWriteDeadline(time.Time{})
}

// connects lets a client in that may be, and for which there is room.
func (g *Gateway) connects(next func(http.ResponseWriter, *http.Request, *client)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !g.room(w, r, true) {
			return
		}
		c, ok := g.known(w, r)
		if !ok {
			return
		}
		next(w, r, c)
	}
}

// room reports whether one more client is taken, which may be one of those that come, and answers it if not.
func (g *Gateway) room(w http.ResponseWriter, r *http.Request, comes bool) bool {
	switch {
	case g.draining.Load():
		g.full(w, r, leaving)
	case g.c.MaxConnections > 0 && g.node.Hub().NumClients() >= g.c.MaxConnections:
		g.full(w, r, full)
	case comes && !g.handshakes.Allow():
		g.full(w, r, tooFast)
	default:
		return true
	}
	return false
}

func (g *Gateway) full(w http.ResponseWriter, r *http.Request, why string) {
	g.metrics.handshake(r.Context(), why)
	w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(5))) // not all together
	refuse(w, http.StatusServiceUnavailable, why)
}

// known says who a client is, and answers it if it is nobody.
func (g *Gateway) known(w http.ResponseWriter, r *http.Request) (*client, bool) {
	c, err := g.authenticate(r)
	switch {
	case err == nil:
		c.commands = g.commands()
		return c, true
	case errors.Is(err, ErrExpired):
		g.metrics.handshake(r.Context(), stranger)
		refuse(w, http.StatusUnauthorized, expired) // it may come back
	case errors.Is(err, ErrUnauthenticated):
		g.metrics.handshake(r.Context(), stranger)
		refuse(w, http.StatusUnauthorized, "not authenticated")
	default:
		g.log.WarnContext(r.Context(), "realtime: a client could not be authenticated", "error", err)
		g.metrics.handshake(r.Context(), failed)
		w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(5)))
		refuse(w, http.StatusServiceUnavailable, "who you are cannot be asked now")
	}
	return nil, false
}

// expired is what the module goes by.
const expired = "token expired"

func refuse(w http.ResponseWriter, status int, title string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "{\"title\":%q,\"status\":%d}\n", title, status)
}

// fromHere refuses pages of other sites: a browser sends its cookies with what they ask for, and WebSockets know no other protection.
func (g *Gateway) fromHere(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case slices.Contains(g.c.Origins, origin) && origin != "":
			h := w.Header()
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Access-Control-Expose-Headers", "Retry-After")
			h.Add("Vary", "Origin")
			if r.Method == http.MethodOptions {
				h.Set("Access-Control-Allow-Methods", "GET, POST")
				h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
				h.Set("Access-Control-Max-Age", "300")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		case origin != "" && !sameHost(origin, r.Host), origin == "" && (site == "cross-site" || site == "same-site"):
			g.metrics.handshake(r.Context(), elsewhere)
			refuse(w, http.StatusForbidden, "pages of other sites may not connect")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == host
}
