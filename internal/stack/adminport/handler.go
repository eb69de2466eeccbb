package adminport

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/telemetry/live"
)

// maxFaultBytes bounds the description of a fault.
const maxFaultBytes = 4 << 10

// Handler serves the page at [live.Path], what it shows below, and [Status] at /status.json, and lets faults be added
// and removed:
//
//	POST   /faults       {"service": "redis", "kind": "latency", "delay": "50ms"}
//	DELETE /faults/{id}
//	DELETE /faults       all
//
// They take as long as it takes until the fault is in force or undone. An error is
// {"error": "…"}, with 400 for a fault that makes no sense, 404 for a service or fault
// that there is not, 409 for one that does not go with others, and 501 for what the
// system cannot do.
//
// Requests from pages of other origins change nothing, and those under a name that is
// not this machine's own get nothing: a name that somebody lets point here would make
// his page one of this origin.
func Handler(m *Monitor, page *live.Page) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", http.RedirectHandler(live.Path, http.StatusFound))
	mux.Handle(live.Path, page)
	mux.Handle(live.Path+"/", page)
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, m.Status()) })
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var fault stack.Fault
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxFaultBytes))
		if err := decoder.Decode(&fault); err != nil {
			answer(w, http.StatusBadRequest, problem{"no fault as JSON: " + err.Error()})
			return
		}
		active, err := m.stack.AddFault(r.Context(), fault)
		if err != nil {
			answer(w, statusOf(err), problem{err.Error()})
			return
		}
		answer(w, http.StatusCreated, active)
	})
	mux.HandleFunc("DELETE /faults/{id}", func(w http.ResponseWriter, r *http.Request) {
		answerDone(w, m.stack.RemoveFault(r.Context(), r.PathValue("id")))
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, r *http.Request) {
		answerDone(w, m.stack.ClearFaults(r.Context()))
	})
	return ownName(http.NewCrossOriginProtection().Handler(mux))
}

// ownName refuses requests to a host that is not an address of the loopback interface
// or its name.
func ownName(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			answer(w, http.StatusForbidden, problem{"this page is at 127.0.0.1, and goes by no other name"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

type problem struct {
	Error string `json:"error"`
}

func answerDone(w http.ResponseWriter, err error) {
	if err != nil {
		answer(w, statusOf(err), problem{err.Error()})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(value) // the client is gone
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, stack.ErrBadFault):
		return http.StatusBadRequest
	case errors.Is(err, stack.ErrNoService), errors.Is(err, stack.ErrNoFault):
		return http.StatusNotFound
	case errors.Is(err, stack.ErrConflict):
		return http.StatusConflict
	case errors.Is(err, stack.ErrUnsupported):
		return http.StatusNotImplemented
	default:
		return http.StatusInternalServerError
	}
}
