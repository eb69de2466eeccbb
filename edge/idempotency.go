package edge

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/tenancy"
)

// ReplayedHeader is in an answer that was given before, as Stripe has it.
const ReplayedHeader = "Idempotent-Replayed"

// Defaults of [IdempotencyConfig].
const (
	DefaultMaxFingerprint = 1 << 20
	DefaultMaxAnswer      = 64 << 10
	// maxHeld bounds an answer that waits for its transaction's commit.
	maxHeld = 8 << 20
)

// What a repeated request may be told, beside the answer of the first one. See draft-ietf-httpapi-idempotency-key-header-07,
// section 2.7.
var (
	// ErrKeyMissing: the route wants a key.
	ErrKeyMissing error = &Problem{Type: problems + "idempotency-key-missing", Status: http.StatusBadRequest, Title: "This request needs an Idempotency-Key"}
	// ErrKeyInFlight: the first request goes on.
	ErrKeyInFlight error = &Problem{Type: problems + "idempotency-key-in-flight", Status: http.StatusConflict, Title: "A request with this Idempotency-Key is under way", After: time.Second}
	// ErrKeyReused: the first request was another one.
	ErrKeyReused error = &Problem{Type: problems + "idempotency-key-reused", Status: http.StatusUnprocessableEntity, Title: "This Idempotency-Key was used with another request"}
	// ErrStoreAway is what a store's errors wrap that nothing was run for.
	ErrStoreAway error = &Problem{Status: http.StatusServiceUnavailable, After: time.Second}
)

// problems is where the types of problems are described.
const problems = "https://github.com/loadlinehq/loadline/blob/main/docs/edge.md#"

// Attempt is a request with a key.
type Attempt struct {
	// Scope is whose key it is: of the tenant, the principal, the method and the route.
	Scope [sha256.Size]byte
	Key   string
	// Fingerprint is of all that a repetition must have in common with the first.
	Fingerprint [sha256.Size]byte
}

// Answer is a handler's.
type Answer struct {
	Status int
	// Header has what is kept of it; see [IdempotencyConfig.Headers].
	Header http.Header
	Body   []byte
	// Cut: the body is too long to be kept, and Body empty.
	Cut bool
	// Token is what the session had seen, as causal.Token's text, beside the effect itself: a store that reads its records
	// through package db adds that.
	Token string

	held *held // the whole of it, in the process that has run it
}

// Failed reports whether the effect must be undone, as far as that can be: on statuses from 500 on.
func (a *Answer) Failed() bool { return a.Status >= http.StatusInternalServerError }

// Kept reports whether a repetition is given this answer. It is not where it may be another when the client has done
// something about it, or has waited, nor where there was nothing to be done.
func (a *Answer) Kept() bool {
	switch a.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestTimeout, statusClientClosed, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return !a.Failed()
}

// IdempotencyStore keeps answers. Package pgstore's keeps them in the transaction of the effect, and package redisstore's
// beside it.
type IdempotencyStore interface {
	// Do returns the answer of an attempt that was made before, and true; or has it run, and returns its answer. What run
	// returns is kept if it is [Answer.Kept], and undone if it is [Answer.Failed], as far as the store can. It is
	// run at most once at a time, and again only where the store has undone the last time. Errors are ErrKeyInFlight,
	// ErrKeyReused, those that wrap ErrStoreAway when it was not run, and others when the effect is undone or not known.
	Do(ctx context.Context, a Attempt, run func(ctx context.Context) (*Answer, error)) (answer *Answer, replayed bool, err error)
}

// IdempotencyConfig needs a Store and a Principal.
type IdempotencyConfig struct {
	Store IdempotencyStore
	// Principal returns who has been authenticated, or the empty text. Keys of one are not those of another: who knows
	// another's key must not be given his answer. Those of nobody are all nobody's.
	Principal func(*http.Request) string
	// Route returns what handles a request, such as the pattern of http.ServeMux. Default: [RouteOf]'s, or the path.
	Route func(*http.Request) string
	// Applies reports whether keys mean something for a request. Default: POST and PATCH. Others pass, as they do without a
	// key.
	Applies func(*http.Request) bool
	// Required reports whether a request without a key is refused; and so is one while the store is away, which for others
	// is as if there was no key. Default: none.
	Required func(*http.Request) bool
	// Headers are kept with an answer beside Content-Type, Content-Encoding, Content-Language, Content-Location, ETag, Link,
	// Location and Retry-After. Cookies never are: a session is of its time.
	Headers []string
	// MaxFingerprint bounds a request's body, which has to be read before anything is run, in bytes. Default 1 MiB; a
	// longer one is 413.
	MaxFingerprint int64
	// MaxAnswer bounds what is kept of an answer's body, in bytes. Default 64 KiB. A longer one is given to the first
	// request, up to 8 MiB, and later ones are told that it was done.
	MaxAnswer int
	// Errors answers.
	Errors Errors
	// MeterProvider is default otel.GetMeterProvider().
	MeterProvider metric.MeterProvider
}

var keptHeaders = []string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Location", "Etag", "Link", "Location", "Retry-After"}

// neverKept are of one answer, or one session.
var neverKept = []string{"Set-Cookie", "Date", "Connection", "Transfer-Encoding", "Content-Length", RequestIDHeader, causal.HeaderName, ReplayedHeader}

func (c *IdempotencyConfig) validate() error {
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("edge: IdempotencyConfig.Store is missing: see packages edge/pgstore and edge/redisstore"))
	}
	if c.Principal == nil {
		errs = append(errs, errors.New("edge: IdempotencyConfig.Principal is missing: without it, who knows a key is given another's answer"))
	}
	for i, name := range c.Headers {
		if slices.ContainsFunc(neverKept, func(never string) bool { return http.CanonicalHeaderKey(name) == http.CanonicalHeaderKey(never) }) {
			errs = append(errs, fmt.Errorf("edge: IdempotencyConfig.Headers number %d is %s, which is of one answer alone", i+1, name))
		}
	}
	if c.MaxFingerprint < 0 || c.MaxAnswer < 0 || c.MaxAnswer > maxHeld {
		errs = append(errs, fmt.Errorf("edge: IdempotencyConfig.MaxFingerprint (%d) and MaxAnswer (%d) must not be negative, and MaxAnswer at most %d", c.MaxFingerprint, c.MaxAnswer, maxHeld))
	}
	return errors.Join(errs...)
}

// Idempotency has requests with the same key run once: a repetition is given the first one's answer, with
// [ReplayedHeader]; 409 and Retry-After while that goes on; 422 where it was another request. It stands behind what
// authenticates, and behind causal.HTTP's handler, for an answer is sent when its effect is committed, and has
// the token.
//
// A handler that has a key cannot flush or hijack: there is nothing to be sent before the commit. Requests without a key
// pass as they are.
//
// The metric is loadline.idempotency.requests{outcome}: done, replayed, in_flight, reused, unkept (its answer may be
// another next time), failed, store_away.
func Idempotency(c IdempotencyConfig) (func(http.Handler) http.Handler, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.MaxFingerprint = cmp.Or(c.MaxFingerprint, DefaultMaxFingerprint)
	c.MaxAnswer = cmp.Or(c.MaxAnswer, DefaultMaxAnswer)
	headers := slices.Clone(keptHeaders)
	for _, name := range c.Headers {
		headers = append(headers, http.CanonicalHeaderKey(name))
	}
	c.Headers = headers
	if c.Applies == nil {
		c.Applies = func(r *http.Request) bool { return r.Method == http.MethodPost || r.Method == http.MethodPatch }
	}
	if c.Required == nil {
		c.Required = func(*http.Request) bool { return false }
	}
	if c.Route == nil {
		c.Route = routeOrPath
	}
	provider := c.MeterProvider
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	requests, err := provider.Meter("github.com/loadlinehq/loadline/edge").Int64Counter("loadline.idempotency.requests",
		metric.WithUnit("{request}"), metric.WithDescription("Requests with an idempotency key."))
	if err != nil {
		return nil, err
	}
	return func(next http.Handler) http.Handler {
		return &idempotency{c, next, requests}
	}, nil
}

type idempotency struct {
	c        IdempotencyConfig
	next     http.Handler
	requests metric.Int64Counter
}

func (i *idempotency) count(ctx context.Context, outcome string) {
	i.requests.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
}

// ServeHTTP implements http.Handler.
func (i *idempotency) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !i.c.Applies(r) {
		i.next.ServeHTTP(w, r)
		return
	}
	key := KeyOf(r.Context())
	if key.Text == "" { // Keys is not in front
		if values := r.Header.Values(IdempotencyKeyHeader); len(values) > 0 {
			text, err := ParseIdempotencyKey(values)
			if err != nil {
				i.c.Errors.Answer(w, r, badKey(err))
				return
			}
			key = Key{text, true}
		}
	}
	if !key.Given {
		if i.c.Required(r) {
			i.c.Errors.Answer(w, r, ErrKeyMissing)
			return
		}
		i.next.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, i.c.MaxFingerprint))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); !ok {
			err = &Problem{Status: http.StatusBadRequest, Detail: "the body could not be read"}
		}
		i.c.Errors.Answer(w, r, err)
		return
	}
	attempt := Attempt{Scope: i.scope(r), Key: key.Text, Fingerprint: fingerprint(r, body)}
	again := func(ctx context.Context) *http.Request {
		r := r.WithContext(ctx)
		r.Body = io.NopCloser(bytes.NewReader(body))
		return r
	}
	answer, replayed, err := i.c.Store.Do(r.Context(), attempt, func(ctx context.Context) (*Answer, error) {
		held := &held{ResponseWriter: w, header: w.Header().Clone()}
		i.next.ServeHTTP(held, again(ctx))
		return i.answer(ctx, held)
	})
	switch {
	case errors.Is(err, ErrStoreAway) && !i.c.Required(r) && r.Context().Err() == nil:
		i.count(r.Context(), "store_away")
		i.next.ServeHTTP(w, again(r.Context()))
	case err != nil:
		i.count(r.Context(), outcomeOf(err))
		i.c.Errors.Answer(w, r, err)
	case replayed:
		i.count(r.Context(), "replayed")
		i.replay(w, r, answer)
	default:
		switch {
		case answer.Failed():
			i.count(r.Context(), "failed")
		case !answer.Kept():
			i.count(r.Context(), "unkept")
		default:
			i.count(r.Context(), "done")
		}
		answer.held.send(w)
	}
}

func outcomeOf(err error) string {
	switch {
	case errors.Is(err, ErrKeyInFlight):
		return "in_flight"
	case errors.Is(err, ErrKeyReused):
		return "reused"
	case errors.Is(err, ErrStoreAway):
		return "store_away"
	}
	return "failed"
}

// answer is what a handler has left.
func (i *idempotency) answer(ctx context.Context, h *held) (*Answer, error) {
	if h.over {
		return nil, fmt.Errorf("edge: an answer to a request with an Idempotency-Key is longer than %d bytes", maxHeld)
	}
	if h.status == 0 {
		if ctx.Err() != nil { // it has given up, which is not 200
			return nil, context.Cause(ctx)
		}
		h.status = http.StatusOK
	}
	a := &Answer{Status: h.status, Header: make(http.Header), Body: h.body.Bytes(), held: h}
	for _, name := range i.c.Headers {
		if values := h.header[name]; len(values) > 0 {
			a.Header[name] = values
		}
	}
	if len(a.Header["Content-Type"]) == 0 && len(a.Body) > 0 { // which net/http would find out by what is kept of it
		h.header.Set("Content-Type", http.DetectContentType(a.Body))
		a.Header["Content-Type"] = h.header["Content-Type"]
	}
	if len(a.Body) > i.c.MaxAnswer {
		a.Body, a.Cut = nil, true
	}
	if session := causal.FromContext(ctx); session != nil {
		a.Token = session.Token().String()
	}
	return a, nil
}

// replay gives an answer again.
func (i *idempotency) replay(w http.ResponseWriter, r *http.Request, a *Answer) {
	if session := causal.FromContext(r.Context()); session != nil && a.Token != "" {
		if t, err := causal.Parse(a.Token); err == nil {
			session.Merge(t)
		} else {
			session.Doubt()
		}
	}
	w.Header().Set(ReplayedHeader, "true")
	if a.Cut {
		if location := a.Header.Get("Location"); location != "" {
			w.Header().Set("Location", location)
		}
		i.c.Errors.Answer(w, r, &Problem{Type: problems + "idempotency-answer-not-kept", Status: http.StatusConflict, Title: "The request was done, and its answer was too long to be kept", Extensions: map[string]any{"answered": a.Status}})
		return
	}
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // to a client that has gone again
}

func (i *idempotency) scope(r *http.Request) (sum [sha256.Size]byte) {
	tenant, _ := tenancy.FromContext(r.Context())
	h := sha256.New()
	for _, text := range [...]string{tenant, i.c.Principal(r), r.Method, i.c.Route(r)} {
		addText(h, text)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// fingerprint is of the method, the path, the query in whatever order, the type of the body, and the body.
func fingerprint(r *http.Request, body []byte) [sha256.Size]byte {
	h := sha256.New()
	addText(h, r.Method)
	addText(h, r.URL.EscapedPath())
	query, _ := url.ParseQuery(r.URL.RawQuery)
	addText(h, query.Encode())
	addText(h, r.Header.Get("Content-Type"))
	_, _ = h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// addText adds a text so that no two sequences of texts are the same.
func addText(h hash.Hash, text string) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(text)))
	_, _ = h.Write(n[:])
	_, _ = io.WriteString(h, text)
}
