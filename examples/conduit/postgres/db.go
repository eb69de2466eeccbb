package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// DB gives out the database by what a statement is about to do with it.
//
// A context that InTx has passed to its function carries the transaction: Read
// and Write then both return it, and a nested InTx joins it.
type DB interface {
	// Read returns a handle for statements that change nothing.
	Read(ctx context.Context) sqlc.DBTX
	// Write returns a handle for statements of any kind.
	Write(ctx context.Context) sqlc.DBTX
	// InTx runs fn in a transaction, committed when fn returns nil and rolled
	// back otherwise. The context that fn receives must not be used after it
	// returns, nor by several goroutines at a time.
	InTx(ctx context.Context, fn func(ctx context.Context) error) error
}

// Primary is a DB that sends every statement to one server: the form that Replicated is
// compared with.
type Primary struct {
	pool *pgxpool.Pool
	// probe is a connection of its own for Ping. In the queue of the pool, an
	// overload would look like a dead server, and every instance would leave
	// the load balancer at once.
	probe *pgxpool.Pool
}

// Open returns a Primary after it has reached the server once.
func Open(ctx context.Context, c Config) (*Primary, error) {
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	config, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	config.MaxConns = c.MaxConns
	config.MaxConnIdleTime = c.IdleTimeout
	config.HealthCheckPeriod = c.IdleTimeout / 2 // when idle connections are looked for
	config.ConnConfig.ConnectTimeout = c.ConnectTimeout
	c.setSession(config.ConnConfig.RuntimeParams)

	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	single := config.Copy()
	single.MaxConns = 1
	probe, err := pgxpool.NewWithConfig(ctx, single)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("postgres: %w", err)
	}
	p := &Primary{pool: pool, probe: probe}
	if err := p.Ping(ctx); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Ping reports whether the server answers.
func (p *Primary) Ping(ctx context.Context) error {
	if err := p.probe.Ping(ctx); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

// Close waits for the connections in use and closes all.
func (p *Primary) Close() {
	p.probe.Close()
	p.pool.Close()
}

type txKey struct{}

// Read implements DB.
func (p *Primary) Read(ctx context.Context) sqlc.DBTX { return p.Write(ctx) }

// Write implements DB.
func (p *Primary) Write(ctx context.Context) sqlc.DBTX {
	if tx, ok := ctx.Value(txKey{}).(pgx.Tx); ok {
		return tx
	}
	return p.pool
}

// InTx implements DB.
func (p *Primary) InTx(ctx context.Context, fn func(ctx context.Context) error) error {
	if _, ok := ctx.Value(txKey{}).(pgx.Tx); ok {
		return fn(ctx)
	}
	return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		return fn(context.WithValue(ctx, txKey{}, tx))
	})
}
