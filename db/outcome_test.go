package db_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// When the answer to a COMMIT does not come, the error says so, and the transaction's
// number finds out what became of it.
func TestOutcomeUnknown(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := stacktest.Proxied(t, d.URL)
	router := run(t, db.Config{Primary: dsn}, nil)
	for name, write := range map[string]func(context.Context) error{
		"transaction": func(ctx context.Context) error {
			return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", 1); err != nil {
					return err
				}
				return proxy.Add("answers", faultproxy.Fault{Kind: faultproxy.Cut, Direction: faultproxy.ToClient})
			})
		},
		"statement": func(ctx context.Context) error {
			if err := proxy.Add("answers", faultproxy.Fault{Kind: faultproxy.Cut, Direction: faultproxy.ToClient}); err != nil {
				return err
			}
			_, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", 2)
			return err
		},
	} {
		// Connections and statements are there before.
		ctx := client(t)
		if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", 10+len(name)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(client(t), 300*time.Millisecond)
		began := time.Now()
		err := write(ctx)
		cancel()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if err := proxy.Remove("answers"); err != nil {
			t.Fatal(err)
		}
		unknown, ok := errors.AsType[*db.OutcomeUnknownError](err)
		if !ok || !errors.Is(err, db.ErrOutcomeUnknown) || db.Retryable(err) || unknown.HTTPStatus() != 503 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !causal.FromContext(ctx).Token().IsZero() {
			t.Errorf("%s: the session has seen what nobody acknowledged", name)
		}
		if name == "statement" {
			if unknown.XID != 0 {
				t.Errorf("number %d", unknown.XID)
			}
			continue
		}
		within(t, 10*time.Second, func() error {
			outcome, err := router.Outcome(t.Context(), unknown)
			if err == nil && outcome != "committed" {
				err = errors.New(outcome)
			}
			return err
		})
	}
	// Both had reached the server.
	within(t, 10*time.Second, func() error {
		var n int
		if err := router.Read(t.Context()).QueryRow(t.Context(), "SELECT count(*) FROM t WHERE id < 10").Scan(&n); err != nil {
			return err
		}
		if n != 2 {
			return errors.New("not both are there")
		}
		return nil
	})
}

// within waits for a condition.
func within(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Error(err)
}

// A server that accepts and never answers does not make anyone wait past his deadline,
// and readers of a replica that goes silent are answered by another.
func TestSilentReplica(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := stacktest.Proxied(t, d.ReplicaURLs[0])
	router := run(t, db.Config{Primary: d.URL, Replicas: []string{dsn}}, nil)
	ctx := client(t)
	var replica bool
	within(t, 5*time.Second, func() error {
		if err := router.Read(ctx).QueryRow(ctx, onReplica).Scan(&replica); err != nil || !replica {
			return errors.Join(err, errors.New("not on the replica"))
		}
		return nil
	})
	if err := proxy.Add("silent", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := router.Read(ctx).QueryRow(ctx, onReplica).Scan(&replica); err != nil || replica {
		t.Errorf("replica: %t, %v", replica, err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v, as long as the query's own timeout", took)
	}
	if err := proxy.Remove("silent"); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, func() error {
		if err := router.Read(ctx).QueryRow(ctx, onReplica).Scan(&replica); err != nil || !replica {
			return errors.Join(err, errors.New("the replica is not used again"))
		}
		return nil
	})
}

// A transaction without a deadline does not wait for ever for a primary that accepts
// and never answers.
func TestSilentPrimary(t *testing.T) {
	t.Parallel()
	d := stacktest.Postgres(t)
	dsn, proxy := stacktest.Proxied(t, d.URL)
	router := run(t, db.Config{Primary: dsn}, func(c *db.Config) { c.PrimaryPool.QueryTimeout = 300 * time.Millisecond })
	began := time.Now()
	err := router.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if err := proxy.Add("silent", faultproxy.Fault{Kind: faultproxy.Stall}); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", 1)
		return err
	})
	if took := time.Since(began); err == nil || errors.Is(err, db.ErrOutcomeUnknown) || took > 6*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	if err := proxy.Remove("silent"); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, func() error {
		_, err := router.Write(t.Context()).Exec(t.Context(), "INSERT INTO t VALUES ($1)", 1)
		return err
	})
}
