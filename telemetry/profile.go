package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"time"
)

// Bounds of a profile that takes a while.
const (
	defaultProfile = 30 * time.Second
	maxProfile     = 5 * time.Minute
)

// profiles serves what go tool pprof and go tool trace ask for, by the addresses of net/http/pprof. That package is not used: to import it puts
// profiles on the port of whoever serves http.DefaultServeMux.
func profiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, p := range pprof.Profiles() {
			fmt.Fprintf(w, "%6d /debug/pprof/%s?debug=1\n", p.Count(), p.Name())
		}
		fmt.Fprint(w, "       /debug/pprof/profile?seconds=30\n       /debug/pprof/trace?seconds=1\n")
	})
	mux.HandleFunc("GET /debug/pprof/profile", func(w http.ResponseWriter, r *http.Request) {
		during(w, r, defaultProfile, "profile", func() error { return pprof.StartCPUProfile(w) }, pprof.StopCPUProfile)
	})
	mux.HandleFunc("GET /debug/pprof/trace", func(w http.ResponseWriter, r *http.Request) {
		during(w, r, time.Second, "trace", func() error { return trace.Start(w) }, trace.Stop)
	})
	mux.HandleFunc("GET /debug/pprof/{name}", func(w http.ResponseWriter, r *http.Request) {
		p := pprof.Lookup(r.PathValue("name"))
		if p == nil {
			http.NotFound(w, r)
			return
		}
		debug, _ := strconv.Atoi(r.FormValue("debug"))
		if debug > 0 {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		} else {
			attach(w, p.Name())
		}
		_ = p.WriteTo(w, debug) // the client has gone
	})
}

// during profiles until the time that is asked for has passed, or the client has gone.
func during(w http.ResponseWriter, r *http.Request, d time.Duration, name string, start func() error, stop func()) {
	if text := r.FormValue("seconds"); text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		d = time.Duration(seconds * float64(time.Second))
		if err != nil || d <= 0 || d > maxProfile {
			http.Error(w, fmt.Sprintf("seconds is %q, and should be more than 0, and at most %v", text, maxProfile.Seconds()), http.StatusBadRequest)
			return
		}
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d + time.Minute)) // where the server has a shorter one
	attach(w, name)
	if err := start(); err != nil {
		w.Header().Del("Content-Disposition")
		http.Error(w, err.Error(), http.StatusConflict) // another profile goes on
		return
	}
	defer stop()
	ctx, cancel := context.WithTimeout(r.Context(), d)
	defer cancel()
	<-ctx.Done()
}

func attach(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
}
