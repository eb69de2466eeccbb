package conduit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kind says what sort of refusal an Error is.
type Kind int

// The kinds of refusal.
const (
	NotFound Kind = iota + 1
	Forbidden
	Taken           // a unique name belongs to somebody else
	Unauthenticated // nobody, or somebody who no longer exists
)

// Error is a refusal that the client is told about: Message about Field, which
// names an input field or a resource.
type Error struct {
	Kind    Kind
	Field   string
	Message string
}

func (e *Error) Error() string { return "conduit: " + e.Field + " " + e.Message }

// The refusals of Conduit. Compare with errors.Is.
var (
	ErrArticleNotFound    = &Error{NotFound, "article", "not found"}
	ErrCommentNotFound    = &Error{NotFound, "comment", "not found"}
	ErrProfileNotFound    = &Error{NotFound, "profile", "not found"}
	ErrArticleForbidden   = &Error{Forbidden, "article", "forbidden"}
	ErrCommentForbidden   = &Error{Forbidden, "comment", "forbidden"}
	ErrUsernameTaken      = &Error{Taken, "username", "has already been taken"}
	ErrEmailTaken         = &Error{Taken, "email", "has already been taken"}
	ErrInvalidCredentials = &Error{Unauthenticated, "credentials", "invalid"}

	// ErrNoViewer stands for a missing, bad or expired token, and for the
	// token of a user who has been deleted: the contract has one answer to all.
	ErrNoViewer = &Error{Unauthenticated, "token", "is missing"}
)

// ErrUnavailable is wrapped by errors that a later attempt may not meet.
var ErrUnavailable = errors.New("conduit: unavailable, try again later")

// ErrOutcomeUnknown is wrapped by errors of writes that may have been done or not:
// another attempt may do them twice.
var ErrOutcomeUnknown = errors.New("conduit: it is not known whether this was done")

// ErrUserNotFound is returned when a user is looked up by id or e-mail. It has
// no answer of its own: what it means depends on who asked.
var ErrUserNotFound = errors.New("conduit: user not found")

// Invalid lists what is wrong with an input: messages by field.
type Invalid map[string][]string

func (v Invalid) Error() string {
	var problems []string
	for _, field := range slices.Sorted(maps.Keys(v)) {
		for _, message := range v[field] {
			problems = append(problems, field+" "+message)
		}
	}
	return "conduit: invalid input: " + strings.Join(problems, ", ")
}

func (v Invalid) add(field, format string, args ...any) {
	v[field] = append(v[field], fmt.Sprintf(format, args...))
}

// err is nil when nothing was found; a plain return of v would not be.
func (v Invalid) err() error {
	if len(v) == 0 {
		return nil
	}
	return v
}
