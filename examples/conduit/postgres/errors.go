package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/examples/conduit"
)

// violations says what the domain calls the violation of a constraint. The
// missing row behind a foreign key is the viewer, who has been deleted since
// the token was issued, or the object of the request, deleted meanwhile.
var violations = map[string]error{
	"users_username_key":        conduit.ErrUsernameTaken,
	"users_email_key":           conduit.ErrEmailTaken,
	"articles_author_id_fkey":   conduit.ErrNoViewer,
	"comments_author_id_fkey":   conduit.ErrNoViewer,
	"comments_article_id_fkey":  conduit.ErrArticleNotFound,
	"favorites_user_id_fkey":    conduit.ErrNoViewer,
	"favorites_article_id_fkey": conduit.ErrArticleNotFound,
	"follows_follower_id_fkey":  conduit.ErrNoViewer,
	"follows_followee_id_fkey":  conduit.ErrProfileNotFound,
}

// domainError says in the domain's words why op has failed. missing is what
// the absence of a row means, or nil when op always has one.
func domainError(op string, err, missing error) error {
	if err == nil {
		return nil
	}
	if missing != nil && errors.Is(err, pgx.ErrNoRows) {
		return missing
	}
	if known, ok := errors.AsType[*conduit.Error](err); ok {
		return known // it has been through here, inside a transaction
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		if known, ok := violations[pgErr.ConstraintName]; ok {
			return known
		}
	}
	if errors.Is(err, db.ErrOutcomeUnknown) {
		return fmt.Errorf("postgres: %s: %w: %w", op, conduit.ErrOutcomeUnknown, err)
	}
	if unavailable(err) {
		return fmt.Errorf("postgres: %s: %w: %w", op, conduit.ErrUnavailable, err)
	}
	return fmt.Errorf("postgres: %s: %w", op, err)
}

// unavailable reports whether the same statement may succeed a moment later.
func unavailable(err error) bool {
	if known, ok := errors.AsType[interface {
		error
		HTTPStatus() int
	}](err); ok { // package db's
		return known.HTTPStatus() == http.StatusServiceUnavailable
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		if pgErr.Code == "55P03" { // lock timeout
			return true
		}
		// PostgreSQL 15 finds by a last check that it has nearly let two update a row on which many have locks, and
		// refuses one of them, as it does for a deadlock, but by the code of a failure of its own.
		if pgErr.Code == "XX000" && strings.HasPrefix(pgErr.Message, "new multixact has more than one updating member") {
			return true
		}
		switch pgErr.Code[:min(2, len(pgErr.Code))] {
		case "08", // connection exception
			"40", // serialization failure, deadlock
			"53", // insufficient resources, such as too many connections
			"57": // operator intervention: shutdown, statement timeout
			return true
		}
		return false
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err)
}

// slugTaken reports whether a statement failed for the slug of another article.
func slugTaken(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.ConstraintName == "articles_slug_key"
}
