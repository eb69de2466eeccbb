package overload

import (
	"bufio"
	"net"
	"net/http"
)

// status notes what is answered.
type status struct {
	http.ResponseWriter
	code     int // 0: 200
	hijacked bool
}

func (s *status) WriteHeader(code int) {
	if s.code == 0 && code >= 200 {
		s.code = code
	}
	s.ResponseWriter.WriteHeader(code)
}

// Flush is http.Flusher's, which some libraries ask for.
func (s *status) Flush() { _ = http.NewResponseController(s.ResponseWriter).Flush() }

// Hijack is http.ResponseController's.
func (s *status) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(s.ResponseWriter).Hijack()
	s.hijacked = s.hijacked || err == nil
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }
