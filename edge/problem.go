package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// Problem is a problem document (RFC 9457), and an error with a status. Its zero value is "500 Internal Server Error".
type Problem struct {
	// Type is a URI that names the kind of problem, and says what to do about it when it is opened. Default
	// "about:blank": the status says it all.
	Type string
	// Title says it in words that are the same for all of the type. Default: those of the status.
	Title string
	// Status is HTTP's. Default 500.
	Status int
	// Detail is of this occurrence, for who has caused it.
	Detail string
	// Instance is a URI of this occurrence.
	Instance string
	// Extensions are further members. One that is named like a member of RFC 9457 is left out.
	Extensions map[string]any
	// After is when to try again, for Retry-After. Default: not said.
	After time.Duration
}

func (p *Problem) status() int {
	if p.Status == 0 {
		return http.StatusInternalServerError
	}
	return p.Status
}

func (p *Problem) title() string {
	if p.Title == "" {
		return http.StatusText(p.status())
	}
	return p.Title
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.title()
	}
	return p.title() + ": " + p.Detail
}

// HTTPStatus is for what asks errors for their status.
func (p *Problem) HTTPStatus() int { return p.status() }

// RetryAfter is for what asks errors when to try again.
func (p *Problem) RetryAfter() time.Duration { return p.After }

// MarshalJSON writes what is not empty.
func (p *Problem) MarshalJSON() ([]byte, error) {
	m := make(map[string]any, len(p.Extensions)+5)
	for name, value := range p.Extensions {
		m[name] = value
	}
	for name, value := range map[string]string{"type": p.Type, "title": p.title(), "detail": p.Detail, "instance": p.Instance} {
		if delete(m, name); value != "" {
			m[name] = value
		}
	}
	m["status"] = p.status()
	return json.Marshal(m)
}

// WriteProblem answers with a problem document. What a handler has set of a body that does not come is taken out of the
// header.
func WriteProblem(w http.ResponseWriter, p *Problem) {
	body, err := json.Marshal(p)
	if err != nil { // of an extension
		short := *p
		short.Extensions = nil
		body, _ = json.Marshal(&short) // texts and a number
	}
	h := w.Header()
	strip(h)
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.After > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((p.After+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(p.status())
	_, _ = w.Write(body) // to a client that has gone
}

// Errors answers requests with errors. Its zero value logs to slog.Default(), and answers with problem documents.
type Errors struct {
	// Write answers, for an API with a form of its own. Default [WriteProblem].
	Write func(w http.ResponseWriter, r *http.Request, p *Problem)
	// Log gets what clients are not told: the errors of statuses from 500 on, but 503. Default slog.Default().
	Log *slog.Logger
}

// Answer answers with an error. It may be a [*Problem], wrapped or not, or have HTTPStatus() int, and
// RetryAfter() time.Duration: the errors of Loadline's packages have, and an application's may. Any other is 500, and
// its text is for the log alone, as is that of any status from 500 on. A deadline that has passed is 504. A client that
// has gone gets 499, as in nginx's log.
func (e Errors) Answer(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if r.Context().Err() == context.Canceled && errors.Is(err, context.Canceled) {
		p = &Problem{Status: statusClientClosed, Title: "Client Closed Request"}
	}
	if s := p.status(); s >= http.StatusInternalServerError && s != http.StatusServiceUnavailable {
		log := e.Log
		if log == nil {
			log = slog.Default()
		}
		log.ErrorContext(r.Context(), "edge: a request has failed", "error", err, "request_id", RequestID(r.Context()), "method", r.Method, "route", RouteOf(r), "status", s)
	}
	if e.Write != nil {
		strip(w.Header())
		e.Write(w, r, p)
		return
	}
	WriteProblem(w, p)
}

// strip takes out of a header what was said of another body, and that it may be kept.
func strip(h http.Header) {
	for _, name := range []string{"Content-Encoding", "Content-Length", "Content-Range", "Content-Language", "ETag", "Last-Modified", "CDN-Cache-Control", "Surrogate-Key", "Cache-Tag"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
}

const statusClientClosed = 499

func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	p := new(Problem)
	if e, ok := errors.AsType[interface {
		error
		HTTPStatus() int
	}](err); ok {
		if p.Status = e.HTTPStatus(); p.Status < 400 || p.Status > 599 {
			return &Problem{}
		}
		if p.Status < http.StatusInternalServerError {
			p.Detail = err.Error()
		}
	} else if errors.Is(err, context.DeadlineExceeded) {
		p.Status = http.StatusGatewayTimeout
	} else if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		p.Status, p.Detail = http.StatusRequestEntityTooLarge, fmt.Sprintf("at most %d bytes are accepted", e.Limit)
	}
	if e, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok {
		p.After = e.RetryAfter()
	}
	return p
}
