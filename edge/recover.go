package edge

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
)

// PanicError is a handler's panic.
type PanicError struct {
	Value any
	Stack []byte
}

func (p *PanicError) Error() string {
	return fmt.Sprintf("edge: a handler panicked: %v\n%s", p.Value, p.Stack)
}

// Recover answers a handler's panic with 500, and logs it. Where the answer has begun, the connection ends, so that the
// client does not take it for whole. http.ErrAbortHandler is passed on.
func Recover(e Errors) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun := &begun{ResponseWriter: w}
			defer func() {
				v := recover()
				if v == nil {
					return
				}
				if v == http.ErrAbortHandler {
					panic(v)
				}
				err := &PanicError{v, debug.Stack()}
				if begun.is {
					silent := e
					silent.Write = func(http.ResponseWriter, *http.Request, *Problem) {}
					silent.Answer(w, r, err)
					panic(http.ErrAbortHandler)
				}
				e.Answer(w, r, err)
			}()
			next.ServeHTTP(begun, r)
		})
	}
}

// begun notes whether the answer has begun.
type begun struct {
	http.ResponseWriter
	is bool
}

func (b *begun) WriteHeader(status int) {
	b.is = b.is || status >= 200 || status == http.StatusSwitchingProtocols // not for 103 Early Hints
	b.ResponseWriter.WriteHeader(status)
}

func (b *begun) Write(p []byte) (int, error) {
	b.is = true
	return b.ResponseWriter.Write(p)
}

// FlushError is http.ResponseController's: what is flushed has begun, though nothing was written.
func (b *begun) FlushError() error {
	err := http.NewResponseController(b.ResponseWriter).Flush()
	b.is = b.is || err == nil
	return err
}

// Flush is http.Flusher's, which some libraries ask for.
func (b *begun) Flush() { _ = b.FlushError() }

// Hijack is http.ResponseController's: the connection is another's, and no answer can follow.
func (b *begun) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(b.ResponseWriter).Hijack()
	b.is = b.is || err == nil
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (b *begun) Unwrap() http.ResponseWriter { return b.ResponseWriter }
