package db

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/causal"
)

// Errors of this package say by HTTPStatus() int what an HTTP server should answer, and
// by RetryAfter() time.Duration when to come again.
var (
	// ErrNoEligibleNode: no server may answer, within the bounds: none is past what the
	// session has seen, or the primary cannot be reached.
	ErrNoEligibleNode error = &condition{"db: no server is eligible", http.StatusServiceUnavailable, time.Second}
	// ErrPoolSaturated: all connections of a server are in use, and the queue for them
	// is full or the wait has lasted too long.
	ErrPoolSaturated error = &condition{"db: all connections are in use", http.StatusServiceUnavailable, time.Second}
	// ErrReadOnly: a write where only reads are allowed; see [ReadOnlyError].
	ErrReadOnly error = &condition{"db: a write in a read", http.StatusInternalServerError, 0}
	// ErrOutcomeUnknown: the connection broke while the server committed; see
	// [OutcomeUnknownError].
	ErrOutcomeUnknown error = &condition{"db: the transaction may or may not have been committed", http.StatusServiceUnavailable, 0}
	// ErrRolledBack: a transaction whose function returned nil was rolled back, since a
	// statement, or a function that joined it, had failed.
	ErrRolledBack error = &condition{"db: the transaction has been rolled back", http.StatusInternalServerError, 0}
	// ErrClosed: the router has been closed.
	ErrClosed error = &condition{"db: the router is closed", http.StatusServiceUnavailable, 0}
	// ErrUnsupported: the server cannot say how far it has come.
	ErrUnsupported = errors.New("db: this server cannot take part")
)

type condition struct {
	text   string
	status int
	after  time.Duration
}

func (c *condition) Error() string             { return c.text }
func (c *condition) HTTPStatus() int           { return c.status }
func (c *condition) RetryAfter() time.Duration { return c.after }

// wrapped is a condition with what is known of this case.
type wrapped struct {
	*condition
	detail string
	cause  error
}

func because(sentinel, cause error, format string, args ...any) error {
	return &wrapped{sentinel.(*condition), fmt.Sprintf(format, args...), cause}
}

func (w *wrapped) Error() string {
	text := w.text + ": " + w.detail
	if w.cause != nil {
		text += ": " + w.cause.Error()
	}
	return text
}

func (w *wrapped) Unwrap() []error {
	if w.cause == nil {
		return []error{w.condition}
	}
	return []error{w.condition, w.cause}
}

// ReadOnlyError is an [ErrReadOnly]: the statement of a read wanted to write.
type ReadOnlyError struct {
	Caller string // file:line of the code that made the call
	Err    error  // PostgreSQL's, nil if it was not asked
}

func (e *ReadOnlyError) Error() string {
	text := ErrReadOnly.Error() + ", at " + e.Caller
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + "; use Write or InTx"
}

// Unwrap returns [ErrReadOnly] and PostgreSQL's error.
func (e *ReadOnlyError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrReadOnly}
	}
	return []error{ErrReadOnly, e.Err}
}

// HTTPStatus is 500: the program is wrong, not the request.
func (e *ReadOnlyError) HTTPStatus() int { return http.StatusInternalServerError }

// OutcomeUnknownError is an [ErrOutcomeUnknown].
type OutcomeUnknownError struct {
	// XID is the transaction's, for pg_xact_status on the primary; see [Router.Outcome].
	// Zero for single statements, whose transaction's number is not asked for.
	XID uint64
	// Timeline is that of the primary which was asked to commit.
	Timeline uint32
	Err      error

	life life // of that primary
}

// life tells the time from one start or crash of a server to the next: what a crash has
// undone had numbers, which are given again.
type life struct {
	started  time.Time
	replayed causal.LSN
}

func (e *OutcomeUnknownError) Error() string {
	text := ErrOutcomeUnknown.Error()
	if e.XID != 0 {
		text += fmt.Sprintf(" (transaction %d)", e.XID)
	}
	return text + ": " + e.Err.Error()
}

// Unwrap returns [ErrOutcomeUnknown] and what broke.
func (e *OutcomeUnknownError) Unwrap() []error { return []error{ErrOutcomeUnknown, e.Err} }

// HTTPStatus is 503.
func (e *OutcomeUnknownError) HTTPStatus() int { return http.StatusServiceUnavailable }

// Retryable reports whether the same call may succeed when it is made again, and has
// had no effect so far: no server was eligible, connections were in use, the connection
// failed before anything was sent, the server stopped before it was asked to commit, or
// the transaction lost against another (serialization failure, deadlock). An unknown
// outcome is not retryable.
func Retryable(err error) bool {
	if errors.Is(err, ErrOutcomeUnknown) {
		return false
	}
	if errors.Is(err, ErrNoEligibleNode) || errors.Is(err, ErrPoolSaturated) || pgconn.SafeToRetry(err) {
		return true
	}
	switch sqlState(err) {
	case "40001", "40P01", "57P01", "57P02", "57P03", "53300":
		return true
	}
	return false
}

func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// place is the file and line of the first caller outside this package.
func place() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, pkgPath+".") || strings.HasSuffix(frame.File, "_test.go") {
			if !strings.HasPrefix(frame.Function, "github.com/jackc/pgx/") && !strings.HasPrefix(frame.Function, pkgPath+"/sqldb.") && !strings.HasPrefix(frame.Function, "database/sql.") {
				return path.Base(path.Dir(frame.File)) + "/" + path.Base(frame.File) + fmt.Sprintf(":%d", frame.Line)
			}
		}
		if !more {
			return "a place that is not known"
		}
	}
}

func timedOut(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

const pkgPath = "github.com/loadlinehq/loadline/db"

// readError gives the error of a read its name.
func readError(err error) error {
	switch sqlState(err) {
	case "25006": // read_only_sql_transaction
		return &ReadOnlyError{Caller: place(), Err: err}
	}
	return err
}

// elsewhere reports whether a read that has not shown a row yet may succeed on
// another server: a recovery conflict, a server that stops, or a connection that broke.
func elsewhere(err error, broken bool) bool {
	pg, answered := errors.AsType[*pgconn.PgError](err)
	if !answered {
		return broken
	}
	// 40001 is a recovery conflict here, although a serialization failure has the same
	// code: the next try on the same replica may meet it again.
	return pg.Code == "40001" || pg.Code >= "57P01" && pg.Code <= "57P03" || pg.Code == "53300" || strings.HasPrefix(pg.Code, "08")
}
