package postgres

import (
	"context"

	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// CreateUser adds a user. It returns ErrUsernameTaken or ErrEmailTaken.
func (s *Store) CreateUser(ctx context.Context, r conduit.Registration, passwordHash string) (conduit.User, error) {
	var created conduit.User
	err := s.changing(ctx, func(ctx context.Context) error {
		row, err := s.write(ctx).CreateUser(ctx, sqlc.CreateUserParams{
			Username:     r.Username,
			Email:        r.Email,
			PasswordHash: passwordHash,
		})
		if err != nil {
			return err
		}
		created = user(row)
		return s.changed(ctx, conduit.UserChanged{ID: row.ID, Username: row.Username})
	})
	return created, domainError("create user", err, nil)
}

// UpdateUser changes a user. An empty passwordHash leaves the password as it
// is. It returns ErrUserNotFound, ErrUsernameTaken or ErrEmailTaken.
func (s *Store) UpdateUser(ctx context.Context, id int64, c conduit.UserChange, passwordHash string) (conduit.User, error) {
	params := sqlc.UpdateUserParams{ID: id, Username: c.Username, Email: c.Email, Bio: c.Bio, Image: c.Image}
	if passwordHash != "" {
		params.PasswordHash = &passwordHash
	}
	var updated conduit.User
	err := s.changing(ctx, func(ctx context.Context) error {
		q := s.write(ctx)
		old := ""
		if s.changes != nil && c.Username != nil {
			var err error
			if old, err = q.LockUsername(ctx, id); err != nil {
				return err
			}
		}
		row, err := q.UpdateUser(ctx, params)
		if err != nil {
			return err
		}
		updated = user(row)
		if c.Username == nil {
			old = row.Username
		}
		return s.changed(ctx, conduit.UserChanged{ID: id, OldUsername: old, Username: row.Username})
	})
	return updated, domainError("update user", err, conduit.ErrUserNotFound)
}

// UserByID returns a user or ErrUserNotFound.
func (s *Store) UserByID(ctx context.Context, id int64) (conduit.User, error) {
	row, err := s.read(ctx).UserByID(ctx, id)
	return user(row), domainError("user by id", err, conduit.ErrUserNotFound)
}

// UserByEmail returns a user, whatever the case of the e-mail's letters, or
// ErrUserNotFound.
func (s *Store) UserByEmail(ctx context.Context, email string) (conduit.User, error) {
	row, err := s.read(ctx).UserByEmail(ctx, email)
	return user(row), domainError("user by email", err, conduit.ErrUserNotFound)
}

// Profile returns a profile, whatever the case of the username's letters, or
// ErrProfileNotFound.
func (s *Store) Profile(ctx context.Context, username string) (conduit.Profile, error) {
	row, err := s.read(ctx).ProfileByUsername(ctx, username)
	profile := conduit.Profile{ID: row.ID, Username: row.Username, Bio: row.Bio, Image: row.Image}
	return profile, domainError("profile", err, conduit.ErrProfileNotFound)
}

// Follow makes the viewer follow a user, once or again. It returns
// ErrProfileNotFound or ErrNoViewer.
func (s *Store) Follow(ctx context.Context, viewer int64, username string) (conduit.Profile, error) {
	row, err := s.write(ctx).Follow(ctx, sqlc.FollowParams{FollowerID: viewer, Username: username})
	return conduit.Profile(row), domainError("follow", err, conduit.ErrProfileNotFound)
}

// Unfollow makes the viewer no longer follow a user. It returns
// ErrProfileNotFound.
func (s *Store) Unfollow(ctx context.Context, viewer int64, username string) (conduit.Profile, error) {
	row, err := s.write(ctx).Unfollow(ctx, sqlc.UnfollowParams{FollowerID: viewer, Username: username})
	return conduit.Profile(row), domainError("unfollow", err, conduit.ErrProfileNotFound)
}

func user(row sqlc.User) conduit.User {
	u := conduit.User{
		Profile:      conduit.Profile{ID: row.ID, Username: row.Username},
		Email:        row.Email,
		PasswordHash: row.PasswordHash,
	}
	if row.Bio != nil {
		u.Bio = *row.Bio
	}
	if row.Image != nil {
		u.Image = *row.Image
	}
	return u
}
