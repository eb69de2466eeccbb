package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// databaseFlag is of all commands that work on the tables of the packages.
type databaseFlag struct {
	URL string `env:"DATABASE_URL" placeholder:"URL" help:"The primary's connection string. After a failover it leads to the new one if it names all servers, with target_session_attrs=read-write."`
}

const (
	// databaseWait is how long who looks once waits for the database.
	databaseWait = 12 * time.Second
	// serverWait bounds an attempt at one server of several, so that there is time for the next.
	serverWait = 5 * time.Second
	retryEvery = 200 * time.Millisecond
)

func (f databaseFlag) missing() error {
	if f.URL != "" {
		return nil
	}
	return errors.New("--url (variable DATABASE_URL) is not set: it is the primary's connection string, such as postgres://user@127.0.0.1:5432/app")
}

// connect returns a connection to the primary, and tries again for as long as wait when
// the database is away.
func (f databaseFlag) connect(ctx context.Context, wait time.Duration) (*pgx.Conn, error) {
	if err := f.missing(); err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(f.URL)
	if err != nil {
		return nil, fmt.Errorf("--url (variable DATABASE_URL) is no connection string such as postgres://user@127.0.0.1:5432/app: %w", err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = serverWait
	}
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var said error // by an attempt that was not cut short
	for {
		conn, err := connectPrimary(within, config)
		if err == nil {
			return conn, nil
		}
		if said == nil || within.Err() == nil {
			said = err
		}
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (strings.HasPrefix(pg.Code, "28") || pg.Code == "3D000") {
			return nil, fmt.Errorf("the database does not let us in; look at --url (variable DATABASE_URL): %w", err)
		}
		select {
		case <-within.Done():
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("the database was away for %v; is it running, and is it where --url (variable DATABASE_URL) says: %w", wait, said)
		case <-time.After(retryEvery):
		}
	}
}

func connectPrimary(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	var standby bool
	err = conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&standby)
	if err == nil && standby {
		err = fmt.Errorf("%s:%d is a standby, where nothing can be written", config.Host, config.Port)
	}
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// named says what to do about tables that are not there.
func named(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "42P01" || pg.Code == "3F000" || pg.Code == "42703") {
		return fmt.Errorf("the database has not the tables, or of another version: run loadline migrate, with the same --url (variable DATABASE_URL): %w", err)
	}
	return err
}
