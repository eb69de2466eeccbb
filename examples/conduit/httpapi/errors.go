package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/auth"
)

// statusClientGone is recorded, and never seen, when the client has gone away
// before the answer. The number is nginx's.
const statusClientGone = 499

// retryAfterSeconds is what a client is asked to wait before it tries again. A
// guess: longer than the failures that pass by themselves, such as a deadlock.
const retryAfterSeconds = "1"

var (
	errNoRoute  = errors.New("httpapi: no such route")
	errNoMethod = errors.New("httpapi: no such method")
)

// problems is the contract's shape of an error: messages by field or resource.
type problems struct {
	Errors map[string][]string `json:"errors"`
}

func problem(field, message string) problems {
	return problems{map[string][]string{field: {message}}}
}

// edgeErrors answer what the edge refuses.
func edgeErrors(log *slog.Logger) edge.Errors { return edge.Errors{Write: writeProblem, Log: log} }

// writeProblem answers in the contract's shape.
func writeProblem(w http.ResponseWriter, _ *http.Request, p *edge.Problem) {
	if p.After > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((p.After+time.Second-1)/time.Second), 10))
	}
	switch {
	case p.Status == statusClientGone:
		w.WriteHeader(statusClientGone)
	case p.HTTPStatus() == http.StatusServiceUnavailable:
		writeJSON(w, p.Status, problem("server", "is unavailable, try again later"))
	case p.HTTPStatus() >= http.StatusInternalServerError:
		writeJSON(w, p.HTTPStatus(), problem("server", "has failed"))
	default:
		writeJSON(w, p.Status, problem("request", p.Error()))
	}
}

// writeError answers with an error. It logs those that are not the client's.
func (a *api) writeError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(r.Context().Err(), context.Canceled) {
		w.WriteHeader(statusClientGone)
		return
	}
	if invalid, ok := errors.AsType[conduit.Invalid](err); ok {
		writeJSON(w, http.StatusUnprocessableEntity, problems{invalid})
		return
	}
	if refusal, ok := errors.AsType[*conduit.Error](err); ok {
		writeJSON(w, status(refusal.Kind), problem(refusal.Field, refusal.Message))
		return
	}
	switch {
	case errors.Is(err, errNoRoute):
		writeJSON(w, http.StatusNotFound, problem("route", "not found"))
	case errors.Is(err, errNoMethod):
		writeJSON(w, http.StatusMethodNotAllowed, problem("method", "not allowed"))
	case errors.Is(err, conduit.ErrOutcomeUnknown):
		a.logError(r, "outcome unknown", err)
		// Without Retry-After: some clients obey it and do everything twice.
		writeJSON(w, http.StatusServiceUnavailable, problem("server", "does not know whether this was done, look before you try again"))
	case errors.Is(err, conduit.ErrUnavailable), errors.Is(err, auth.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		a.logError(r, "unavailable", err)
		w.Header().Set("Retry-After", retryAfterSeconds)
		writeJSON(w, http.StatusServiceUnavailable, problem("server", "is unavailable, try again later"))
	default:
		a.logError(r, "request failed", err)
		writeJSON(w, http.StatusInternalServerError, problem("server", "has failed"))
	}
}

func (a *api) logError(r *http.Request, message string, err error) {
	a.log.ErrorContext(r.Context(), message,
		slog.String("request_id", edge.RequestID(r.Context())),
		slog.String("route", edge.RouteOf(r)),
		slog.Any("error", err))
}

func status(kind conduit.Kind) int {
	switch kind {
	case conduit.NotFound:
		return http.StatusNotFound
	case conduit.Forbidden:
		return http.StatusForbidden
	case conduit.Taken:
		return http.StatusConflict
	case conduit.Unauthenticated:
		return http.StatusUnauthorized
	}
	return http.StatusInternalServerError
}
