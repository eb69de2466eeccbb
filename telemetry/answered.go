package telemetry

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// answered notes with what a request is answered.
type answered struct {
	http.ResponseWriter
	status int // 0: 200
}

func (a *answered) statusCode() int {
	if a.status == 0 {
		return http.StatusOK
	}
	return a.status
}

func (a *answered) WriteHeader(status int) {
	// Others of the first hundred come before the answer.
	if a.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answered) Write(b []byte) (int, error) {
	a.begin()
	return a.ResponseWriter.Write(b)
}

// ReadFrom keeps sendfile possible.
func (a *answered) ReadFrom(from io.Reader) (int64, error) {
	a.begin()
	return io.Copy(a.ResponseWriter, from)
}

// FlushError is what http.ResponseController calls, before it would unwrap.
func (a *answered) FlushError() error {
	a.begin()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Flush is http.Flusher's, which some libraries ask for.
func (a *answered) Flush() { _ = a.FlushError() }

// Hijack is for libraries that ask for an http.Hijacker, as some for WebSockets do.
func (a *answered) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil && a.status == 0 {
		a.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// begin has what is written without a status be a 200, so that a later WriteHeader, which has no effect, is not believed.
func (a *answered) begin() {
	if a.status == 0 {
		a.status = http.StatusOK
	}
}
