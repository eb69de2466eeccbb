package live

import (
	"bytes"
	"compress/gzip"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

// Path is where a [Page] is served.
const Path = "/loadline"

//go:embed web
var web embed.FS

// Config says what a page shows.
type Config struct {
	// Sources are the instances, asked for at each look: they may come and go. One that stays must be the same value each time.
	Sources func() []Source
	// Stack returns what else is shown, as JSON, of servers and faults, and the share of their processors that servers use, by the hop that they are ("cache", "broker").
	// It is asked once a second while somebody watches, and must not take long. Default none.
	Stack func() (shown any, load map[string]float64)
}

// Page is served at [Path] and below, behind what says who may look, such as telemetry.AdminConfig:
//
//	GET /loadline               the page
//	GET /loadline/view          what it shows now, as JSON
//	GET /loadline/events        the same once a second, as server-sent events
//	GET /loadline/traces        the latest traces, and /loadline/traces/{id} one of them with its spans and lines
//
// Nothing of it changes anything. Close ends it.
type Page struct {
	mux   *http.ServeMux
	watch *watcher
}

// New returns a page. It does nothing until somebody looks.
func New(c Config) (*Page, error) {
	if c.Sources == nil {
		return nil, errors.New("live: Config.Sources is missing: it says which instances are shown, such as live.Local")
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Page{mux: http.NewServeMux(), watch: &watcher{c: c, news: make(chan struct{}), ctx: ctx, end: cancel}}
	if err := p.files(); err != nil {
		cancel()
		return nil, err
	}
	p.mux.HandleFunc("GET "+Path+"/view", p.view)
	p.mux.HandleFunc("GET "+Path+"/events", p.events)
	p.mux.HandleFunc("GET "+Path+"/traces", p.traces)
	p.mux.HandleFunc("GET "+Path+"/traces/{id}", p.trace)
	return p, nil
}

// Of is the page of one instance: this process.
func Of(s Source) (*Page, error) {
	sources := []Source{s}
	return New(Config{Sources: func() []Source { return sources }})
}

// Close ends all who watch.
func (p *Page) Close() {
	p.watch.mu.Lock()
	p.watch.closed = true
	p.watch.mu.Unlock()
	p.watch.end()
	p.watch.ended.Wait()
	for _, source := range p.watch.c.Sources() {
		if c, ok := source.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// ServeHTTP implements [http.Handler].
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// policy lets the page load what is beside it, and nothing else, from nowhere else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (p *Page) files() error {
	entries, err := web.ReadDir("web")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		content, err := web.ReadFile("web/" + entry.Name())
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := z.Write(content); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		kind := mime.TypeByExtension(path.Ext(entry.Name()))
		if kind == "" {
			kind = "text/plain; charset=utf-8"
		}
		serve := func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Content-Security-Policy", policy)
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Content-Type", kind)
			h.Set("Vary", "Accept-Encoding")
			if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				h.Set("Content-Encoding", "gzip")
				_, _ = w.Write(packed.Bytes()) // the client has gone
				return
			}
			_, _ = w.Write(content)
		}
		if entry.Name() == "page.html" {
			p.mux.HandleFunc("GET "+Path, serve)
			p.mux.HandleFunc("GET "+Path+"/{$}", serve)
			continue
		}
		p.mux.HandleFunc("GET "+Path+"/"+entry.Name(), serve)
	}
	return nil
}

// fresh waits for a view with rates; one that nobody has watched for takes two looks.
func (p *Page) fresh(ctx context.Context) (*View, error) {
	limit := time.After(3 * every)
	for {
		v, news := p.watch.latest()
		if v != nil && v.Window > 0 {
			return v, nil
		}
		select {
		case <-news:
		case <-limit: // no instance answers, and the view says so
			if v == nil {
				return nil, errors.New("nobody has looked so far")
			}
			return v, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-p.watch.ctx.Done():
			return nil, errClosed
		}
	}
}

// View looks, for a second or two if nobody watches.
func (p *Page) View(ctx context.Context) (*View, error) {
	if err := p.watch.enter(); err != nil {
		return nil, err
	}
	defer p.watch.leave()
	return p.fresh(ctx)
}

func (p *Page) view(w http.ResponseWriter, r *http.Request) {
	v, err := p.View(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, v)
}

// writeLimit is for one event: who does not read is left.
const writeLimit = 10 * time.Second

func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	if err := p.watch.enter(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer p.watch.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // of a proxy in front
	control := http.NewResponseController(w)
	send := func(event string, value any) error {
		data, err := json.Marshal(value)
		if err != nil {
			return err
		}
		if err := control.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, data); err != nil {
			return err
		}
		return control.Flush()
	}
	if send("history", p.watch.past()) != nil {
		return
	}
	for {
		v, news := p.watch.latest()
		if v != nil && send("view", v) != nil {
			return
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		case <-p.watch.ctx.Done():
			return
		}
	}
}

func (p *Page) traces(w http.ResponseWriter, r *http.Request) { answer(w, p.watch.traces(r.Context())) }

func (p *Page) trace(w http.ResponseWriter, r *http.Request) {
	t, err := p.watch.trace(r.Context(), r.FormValue("instance"), r.PathValue("id"))
	switch {
	case errors.Is(err, ErrNoTrace):
		http.Error(w, "it is not kept any more", http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	default:
		answer(w, t)
	}
}

func answer(w http.ResponseWriter, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(data) // the client has gone
}
