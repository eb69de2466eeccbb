package causal

import (
	"context"
	"io"
	"net/http"
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

// tell puts what has changed into the header, once.
func (a *answer) tell() {
	if a.begun {
		return
	}
	a.begun = true
	a.told = a.session.Token()
	if !a.session.Changed() && !a.replace {
		return
	}
	if a.session.Changed() {
		a.save(a.told)
	}
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
	if header.Get("Cache-Control") == "" {
		header.Set("Cache-Control", "private")
	}
}

// end tells of what has changed since the header was sent.
func (a *answer) end() {
	if !a.begun {
		a.tell()
		return
	}
	if t := a.session.Token(); !t.Equal(a.told) {
		a.save(t)
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

func (a *answer) save(t Token) {
	if a.principal == "" || !a.session.Changed() {
		return
	}
	// The client may be gone; what it wrote is there for its next request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), a.h.c.StoreTimeout)
	defer cancel()
	err := a.h.c.Store.Save(ctx, a.principal, t)
	if err != nil && ctx.Err() == nil {
		err = a.h.c.Store.Save(ctx, a.principal, t)
	}
	if err != nil {
		a.h.c.Logger.WarnContext(ctx, "causal: a token was not stored; a client that does not keep it may read the past until replicas have caught up", "error", err)
	}
}
