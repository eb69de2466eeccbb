package edge

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
)

// held is an answer that waits for the commit of its effect.
type held struct {
	http.ResponseWriter
	header http.Header
	status int
	body   bytes.Buffer
	over   bool
}

var errHeld = errors.New("edge: the answer to a request with an Idempotency-Key is longer than 8 MiB")

// Header is the answer's own: another one may be sent in its place.
func (h *held) Header() http.Header { return h.header }

func (h *held) WriteHeader(status int) {
	switch {
	case status >= 100 && status < 200 && status != http.StatusSwitchingProtocols: // hints come too late with the answer
	case h.status == 0:
		h.status = status
	}
}

func (h *held) Write(p []byte) (int, error) {
	if h.status == 0 {
		h.status = http.StatusOK
	}
	if h.over = h.over || h.body.Len()+len(p) > maxHeld; h.over {
		return 0, errHeld
	}
	return h.body.Write(p)
}

// FlushError is http.ResponseController's.
func (h *held) FlushError() error { return http.ErrNotSupported }

// Hijack is http.ResponseController's.
func (h *held) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, http.ErrNotSupported }

// Unwrap is for http.ResponseController, for deadlines.
func (h *held) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// send sends what was held.
func (h *held) send(w http.ResponseWriter) {
	to := w.Header()
	for name := range to {
		if _, ok := h.header[name]; !ok {
			delete(to, name)
		}
	}
	for name, values := range h.header {
		to[name] = values
	}
	w.WriteHeader(h.status)
	_, _ = w.Write(h.body.Bytes()) // to a client that has gone
}
