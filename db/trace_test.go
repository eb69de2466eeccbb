package db_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/loadlinehq/loadline/db"
)

// A trace says what each statement was, which server answered, and why that one.
func TestTraces(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	router := open(t, func(c *db.Config) { c.TracerProvider = provider })
	ctx := client(t)
	if err := router.Read(ctx).QueryRow(ctx, "SELECT 1").Scan(nil); err != nil {
		t.Fatal(err)
	}
	if n := len(recorder.Ended()); n != 0 {
		t.Errorf("%d spans without a trace around them", n)
	}
	ctx, request := provider.Tracer("test").Start(ctx, "request")
	for _, write := range []func() error{
		func() error { _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES (1)"); return err },
		func() error { _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", 2); return err },
		func() error {
			return router.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "INSERT INTO t VALUES (3)"); err != nil {
					return err
				}
				return tx.QueryRow(ctx, "SELECT 3").Scan(nil)
			})
		},
		func() error {
			tx, err := router.Begin(ctx)
			if err != nil {
				return err
			}
			return tx.Rollback(ctx)
		},
		func() error { return router.Read(ctx).QueryRow(ctx, "SELECT 4").Scan(nil) },
		func() error { _, err := router.Read(ctx, db.Strong()).Exec(ctx, "SELECT 5 WHERE false"); return err },
		func() error {
			b := &pgx.Batch{}
			b.Queue("SELECT 6")
			b.Queue("SELECT 7")
			return router.Read(ctx).SendBatch(ctx, b).Close()
		},
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := router.Write(ctx).Exec(ctx, "INSERT INTO t VALUES ($1)", 1); err == nil {
		t.Error("a duplicate was taken")
	}
	request.End()

	type want struct {
		name, sql, reason, status string
		inTransaction             bool
	}
	wanted := []want{
		{name: "postgresql write", sql: "INSERT INTO t VALUES (1)", reason: "write"},
		{name: "postgresql write", sql: "INSERT INTO t VALUES ($1)", reason: "write"},
		{name: "postgresql statement", sql: "INSERT INTO t VALUES (3)", inTransaction: true},
		{name: "postgresql statement", sql: "SELECT 3", inTransaction: true},
		{name: "postgresql transaction", reason: "write"},
		{name: "postgresql transaction", reason: "write"},
		{name: "postgresql read", sql: "SELECT 4"}, // the reason may be that it waited
		{name: "postgresql read", sql: "SELECT 5 WHERE false", reason: "strong"},
		{name: "postgresql read"},
		{name: "postgresql write", sql: "INSERT INTO t VALUES ($1)", reason: "write", status: "23505"},
		{name: "request"},
	}
	spans := recorder.Ended()
	if len(spans) != len(wanted) {
		t.Fatalf("%d spans, want %d", len(spans), len(wanted))
	}
	for i, w := range wanted {
		span, got := spans[i], make(map[string]string)
		for _, a := range span.Attributes() {
			got[string(a.Key)] = a.Value.String()
		}
		if span.Name() != w.name || got["db.query.text"] != w.sql || w.reason != "" && got["loadline.db.reason"] != w.reason || got["db.response.status_code"] != w.status {
			t.Errorf("span %d is %q %v, want %+v", i, span.Name(), got, w)
		}
		if (span.Status().Code == codes.Error) != (w.status != "") {
			t.Errorf("span %d has status %v", i, span.Status())
		}
		direct := span.Parent().SpanID() == request.SpanContext().SpanID()
		if w.name != "request" && direct == w.inTransaction {
			t.Errorf("span %d, %s: its parent is the request: %t", i, w.name, direct)
		}
		if !w.inTransaction && w.name != "request" && (got["server.address"] == "" || got["server.port"] == "") {
			t.Errorf("span %d, %s: no server in %v", i, w.name, got)
		}
	}
}
