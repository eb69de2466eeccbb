package causal

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// DoubtName is the header by which a request says that its client may have seen more than
// its token says, for now; see [Session.Doubt]. Whoever gets it reads primaries. It needs no
// signature: who lies by it has read the primary, as if he had brought no token.
const DoubtName = "Causal-Doubt"

// TransportConfig says how calls to other services of one's own are made. Only Keys are
// required.
type TransportConfig struct {
	// Base makes the calls. Default http.DefaultTransport.
	Base http.RoundTripper
	// Keys are those of the services, which sign and check each other's tokens.
	Keys Keys
}

// Validate reports all fields that cannot be.
func (c TransportConfig) Validate() error {
	if c.Keys.IsZero() {
		return errors.New("causal: TransportConfig.Keys: there is none; see NewKeys")
	}
	return nil
}

// Transport is an [http.RoundTripper] for calls to one's own services that answer through
// [HTTP.Handler]: they see what the caller's session has seen, and it sees what they have
// written. Its methods may be called by several goroutines.
//
// The session is that of the request's context; without one, a request passes untouched.
// The token of the answer's header is in the session when the call returns, that of the
// trailer when the body has been read to [io.EOF].
//
// A session that has seen nothing sends nothing. A service all of whose callers have a
// Transport can take that for what it is: [HTTPConfig.AbsentMeansNew].
//
// The session is in doubt, and reads primaries until it ends, when a service may have written
// what it does not know of: an answer has a token that is by none of the keys; or a request
// that may write (not GET, HEAD, OPTIONS or TRACE) has failed, or the body of its answer was
// closed before its end and could have had a trailer after it. A client does not learn of
// this.
//
// It is for one's own services only. Others would learn positions, which are no secret, but
// of no use to them; so mind where an [http.Client] is redirected to.
type Transport struct{ c TransportConfig }

// NewTransport checks the configuration.
func NewTransport(c TransportConfig) (*Transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	return &Transport{c}, nil
}

// RoundTrip implements [http.RoundTripper]. Its errors are those of Base.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	s := FromContext(r.Context())
	if s == nil {
		return t.c.Base.RoundTrip(r)
	}
	response, err := t.c.Base.RoundTrip(t.with(r, s))
	if err != nil {
		if mayWrite(r) {
			s.Doubt()
		}
		return response, err
	}
	t.heard(s, response.Header)
	// With 101 the body is a connection, which has no trailer and is more than a reader.
	if response.Body != nil && response.Body != http.NoBody && response.StatusCode != http.StatusSwitchingProtocols {
		response.Body = &body{ReadCloser: response.Body, t: t, s: s, response: response, mayWrite: mayWrite(r)}
	}
	return response, nil
}

// CloseIdleConnections is for [http.Client.CloseIdleConnections].
func (t *Transport) CloseIdleConnections() {
	if base, ok := t.c.Base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// with returns the request with what the session has seen. Only the header is cloned: the
// trailer of a request is filled in while its body is sent.
func (t *Transport) with(r *http.Request, s *Session) *http.Request {
	r = r.WithContext(r.Context())
	if r.Header = r.Header.Clone(); r.Header == nil {
		r.Header = make(http.Header)
	}
	if signed := t.c.Keys.Sign(s.Token()); signed != "" {
		r.Header.Set(HeaderName, signed)
	}
	// Not by an incomplete token: the service could not tell it from what it has to say
	// itself, and that the session's client would keep for a day.
	if s.doubt.Load() {
		r.Header.Set(DoubtName, "1")
	}
	return r
}

// heard notes what an answer's header or trailer says.
func (t *Transport) heard(s *Session, fields http.Header) {
	p := t.c.Keys.present(fields.Values(HeaderName), nil)
	s.Merge(p.token)
	if p.bad { // it may have said anything
		s.Doubt()
	}
}

func mayWrite(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace: // safe: RFC 9110, section 9.2.1
		return false
	}
	return true
}

// body hears the trailer.
type body struct {
	io.ReadCloser
	t        *Transport
	s        *Session
	response *http.Response
	mayWrite bool
	ended    atomic.Bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && !b.ended.Swap(true) {
		b.t.heard(b.s, b.response.Trailer)
	}
	return n, err
}

// Close before the end leaves open what the trailer would have said. There can be none in
// HTTP/1 behind a length.
func (b *body) Close() error {
	trailer := b.response.ContentLength < 0 || b.response.ProtoMajor > 1
	if !b.ended.Swap(true) && b.mayWrite && trailer {
		b.s.Doubt()
	}
	return b.ReadCloser.Close()
}
