package causal

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
)

// Unwrap is for [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	// Others of the first hundred come before the answer.
	if status >= 200 || status == http.StatusSwitchingProtocols {
		a.tell()
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	a.tell()
	return a.ResponseWriter.Write(b)
}

// ReadFrom keeps sendfile possible.
func (a *answer) ReadFrom(from io.Reader) (int64, error) {
	a.tell()
	return io.Copy(a.ResponseWriter, from)
}

// FlushError is what [http.ResponseController] calls, before it would unwrap.
func (a *answer) FlushError() error {
	a.tell()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

func (a *answer) Flush() { _ = a.FlushError() }

// Hijack is for libraries that ask for an [http.Hijacker], as some for WebSockets do.
// The connection's new owner tells its client himself what it sees.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil && !a.begun {
		a.begun, a.told = true, a.session.Token()
		a.save(a.told)
	}
	return conn, rw, err
}

// tell puts what has changed into the header, once.
func (a *answer) tell() {
	if a.begun {
		return
	}
	a.begun = true
	a.told = a.session.Token()
	a.save(a.told)
	if !a.replace && (!a.session.Changed() || a.has(a.told)) {
		return
	}
	a.holdsIt = false // it gets another
	header, signed := a.Header(), a.h.c.Keys.Sign(a.told)
	if signed != "" {
		header.Set(HeaderName, signed)
	}
	if !a.h.c.DisableCookie {
		cookie := &http.Cookie{
			Name: a.h.c.CookieName, Value: signed, Path: "/", HttpOnly: true,
			MaxAge: int(a.h.c.CookieAge.Seconds()), Secure: !a.h.c.InsecureCookie, SameSite: http.SameSiteLaxMode,
		}
		if signed == "" {
			cookie.MaxAge = -1
		}
		http.SetCookie(a.ResponseWriter, cookie)
	}
	// A shared cache would give one client's token to all.
	if said := header.Get("Cache-Control"); !strings.Contains(said, "private") && !strings.Contains(said, "no-store") {
		header.Set("Cache-Control", "private")
		header.Del("CDN-Cache-Control")
	}
}

// end tells of what has changed since the header was sent.
func (a *answer) end() {
	if !a.begun {
		a.tell()
		return
	}
	t := a.session.Token()
	if became := a.session.identified(); became != a.savedFor && t.Equal(a.told) {
		a.save(t) // after the first byte, and without a change
	}
	if !t.Equal(a.told) {
		a.save(t)
		if a.has(t) {
			return
		}
		a.Header().Set(http.TrailerPrefix+HeaderName, a.h.c.Keys.Sign(t))
	}
}

// fall is the end by a panic. Somebody further out may answer it, by a 500, say.
func (a *answer) fall() {
	if !a.begun {
		a.tell()
		return
	}
	a.save(a.session.Token())
}

// has reports whether the client has t, and nothing else, from before. A session that
// was settled after a failover comes back to it on each request, as long as the store
// still has the older mark.
func (a *answer) has(t Token) bool { return a.holdsIt && a.holds.Equal(t) }

// save stores what is new for the principal, and all for one that the client has
// become.
func (a *answer) save(t Token) {
	if a.h.c.Store == nil {
		return
	}
	if became := a.session.identified(); became != "" {
		a.savedFor = became
		if became != a.principal && !t.IsZero() {
			a.saveFor(became, t)
		}
	}
	// What would change nothing must not keep an older mark alive either: a settled
	// session would save again on each request, and never lose it. A mark that is not new
	// needs no more time, for its write is as old as it was.
	if nothing := a.keptAll && a.kept.Merge(t).Equal(a.kept); a.principal != "" && a.session.Changed() && !nothing {
		a.saveFor(a.principal, t)
	}
}

func (a *answer) saveFor(principal string, t Token) {
	// The client may be gone; what it wrote is there for its next request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), a.h.c.StoreTimeout)
	defer cancel()
	// A first attempt that hangs, on a connection that is dead, say, must leave time for another.
	first, stop := context.WithTimeout(ctx, a.h.c.StoreTimeout/2)
	err := a.h.c.Store.Save(first, principal, t)
	stop()
	if err != nil {
		err = a.h.c.Store.Save(ctx, principal, t)
	}
	if err != nil {
		a.h.c.Logger.WarnContext(ctx, "causal: a token was not stored; a client that does not keep it may read the past until replicas have caught up", "error", err)
	}
}
