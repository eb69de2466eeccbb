package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/edge"
)

// view is who looks, and where he hears what is for him.
type view struct {
	User    *userView `json:"user"`    // null: nobody
	Channel string    `json:"channel"` // "": none
	Live    bool      `json:"live"`    // somebody tells
}

type userView struct {
	Username string  `json:"username"`
	Email    string  `json:"email"`
	Image    *string `json:"image"`
}

// session says who looks.
func (h *handler) session(w http.ResponseWriter, r *http.Request) {
	token, err := h.c.Sessions.Token(r)
	if err != nil {
		h.unavailable(w, r, err)
		return
	}
	if token == "" {
		h.write(w, http.StatusOK, view{Live: h.c.Live != nil})
		return
	}
	got := &answer{header: make(http.Header)}
	asked := inner(r, http.MethodGet, "/api/user", "", token)
	asked.Header.Del("If-None-Match")
	h.c.API.ServeHTTP(got, asked)
	switch got.status {
	case http.StatusOK:
		h.writeUser(w, r, got)
	case http.StatusUnauthorized: // the user is gone
		if _, err := h.c.Sessions.end(w, r); err != nil {
			h.unavailable(w, r, err)
			return
		}
		h.write(w, http.StatusOK, view{Live: h.c.Live != nil})
	default:
		got.copyTo(w)
	}
}

// enter logs in, or registers and logs in, by the API.
func (h *handler) enter(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// First, for who is registered and cannot log in believes that it has failed.
		if err := h.c.Sessions.answer(r.Context()); err != nil {
			h.unavailable(w, r, err)
			return
		}
		got := &answer{header: make(http.Header)}
		h.c.API.ServeHTTP(got, inner(r, http.MethodPost, path, "", ""))
		if got.status >= http.StatusBadRequest {
			got.copyTo(w)
			return
		}
		token, _, err := got.user()
		var before string
		if err == nil {
			before, err = h.c.Sessions.begin(w, r, token)
		}
		if err != nil {
			h.unavailable(w, r, err)
			return
		}
		// Another window of this browser may still be the other's: it asks who it is when its connection ends.
		if h.userOf(before) != h.userOf(token) {
			h.disconnect(r, before)
		}
		h.writeUser(w, r, got)
	}
}

// leave ends the session, and then what its user listens to: the other way round he would come back.
func (h *handler) leave(w http.ResponseWriter, r *http.Request) {
	token, err := h.c.Sessions.end(w, r)
	if err != nil {
		h.unavailable(w, r, err)
		return
	}
	h.disconnect(r, token)
	w.WriteHeader(http.StatusNoContent)
}

// disconnect ends what the user of a token listens to, whose session has ended.
func (h *handler) disconnect(r *http.Request, token string) {
	user := h.userOf(token)
	if user == 0 || h.c.Live == nil {
		return
	}
	if err := h.c.Live.Disconnect(r.Context(), strconv.FormatInt(user, 10)); err != nil {
		h.c.Log.WarnContext(r.Context(), "who has logged out may hear of notifications until he closes the page", slog.Any("error", err))
	}
}

// userOf is 0 where a token is nobody's.
func (h *handler) userOf(token string) int64 {
	user, err := h.c.Tokens.Check(token)
	if err != nil {
		return 0
	}
	return user
}

// writeUser answers with the user of the API's answer, who keeps the token of it for himself.
func (h *handler) writeUser(w http.ResponseWriter, r *http.Request, got *answer) {
	_, user, err := got.user()
	if err != nil {
		h.errors.Answer(w, r, err)
		return
	}
	if seen := got.header.Get(causal.HeaderName); seen != "" {
		w.Header().Set(causal.HeaderName, seen)
	}
	h.write(w, http.StatusOK, view{User: user, Channel: got.header.Get("Realtime-Channel"), Live: h.c.Live != nil})
}

func (h *handler) write(w http.ResponseWriter, status int, object any) {
	body, err := json.Marshal(object)
	if err != nil {
		panic(err) // types of ours that JSON does not know
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // to a browser that has gone
}

// awayHeader is what tells a page that it is by its session that it is refused, and not by what it has asked for.
const awayHeader = "Conduit-Away"

// unavailable says in the API's shape what cannot be done while sessions are away.
func (h *handler) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, ErrSessions) {
		h.errors.Answer(w, r, err)
		return
	}
	h.c.Log.WarnContext(r.Context(), "a session cannot be asked for", slog.Any("error", err), slog.String("request_id", edge.RequestID(r.Context())))
	w.Header().Set("Retry-After", strconv.Itoa(int((2 * time.Second).Seconds())))
	w.Header().Set(awayHeader, "sessions")
	h.write(w, http.StatusServiceUnavailable, map[string]map[string][]string{"errors": {"login": {"is not possible at the moment, try again later"}}})
}

// answer is what the API has said.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// user is what it says of one.
func (a *answer) user() (token string, user *userView, err error) {
	var said struct {
		User struct {
			userView
			Token string `json:"token"`
		} `json:"user"`
	}
	if err := json.Unmarshal(a.body.Bytes(), &said); err != nil {
		return "", nil, err
	}
	return said.User.Token, &said.User.userView, nil
}

func (a *answer) copyTo(w http.ResponseWriter) {
	for _, name := range []string{"Content-Type", "Retry-After", "RateLimit", "RateLimit-Policy", "Cache-Control"} {
		for _, value := range a.header.Values(name) {
			w.Header().Add(name, value) // lists, of which Config.Limit may have said the beginning
		}
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // to a browser that has gone
}
