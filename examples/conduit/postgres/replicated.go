package postgres

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/examples/conduit/postgres/sqlc"
)

// Replicated is a DB that reads from replicas what they have already seen of what the
// context's session has seen, and everything else from the primary.
type Replicated struct{ router *db.Router }

// OpenReplicated returns a Replicated after it has reached the primary once. It needs
// Run.
func OpenReplicated(ctx context.Context, c Config, log *slog.Logger) (*Replicated, error) {
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	pool := db.Pool{
		MaxConns:       int(c.MaxConns),
		IdleTime:       c.IdleTimeout,
		ConnectTimeout: c.ConnectTimeout,
		QueryTimeout:   c.QueryTimeout,
		QueueWait:      queueWait,
	}
	replicaPool := pool
	replicaPool.MaxConns = int(c.ReplicaMaxConns)
	router, err := db.Open(ctx, db.Config{
		Primary: c.URL, Replicas: c.Replicas,
		PrimaryPool: pool, ReplicaPool: replicaPool, LagLimit: c.LagLimit,
		Configure: func(p *pgxpool.Config) { c.setSession(p.ConnConfig.RuntimeParams) },
		LostWrite: func(l db.LostWrite) {
			log.Error("a failover has lost a write that was acknowledged", slog.String("position", l.Mark.LSN.String()),
				slog.Any("timeline", l.Mark.Timeline), slog.String("fork", l.Fork.String()))
		},
		Logger: log,
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return &Replicated{router}, nil
}

// Router is what it routes by, for handlers of events.
func (r *Replicated) Router() *db.Router { return r.router }

// Run watches the servers until ctx is done.
func (r *Replicated) Run(ctx context.Context) error { return r.router.Run(ctx) }

// Ping reports whether any server answers.
func (r *Replicated) Ping(ctx context.Context) error { return r.router.Ping(ctx) }

// Close waits for the connections in use and closes all.
func (r *Replicated) Close() { r.router.Close() }

// Read implements DB.
func (r *Replicated) Read(ctx context.Context) sqlc.DBTX { return r.router.Read(ctx) }

// Write implements DB.
func (r *Replicated) Write(ctx context.Context) sqlc.DBTX { return r.router.Write(ctx) }

// InTx implements DB.
func (r *Replicated) InTx(ctx context.Context, fn func(ctx context.Context) error) error {
	return r.router.InTx(ctx, func(ctx context.Context, _ pgx.Tx) error { return fn(ctx) })
}
