package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// span is a call in a trace: which statement, on which server, and why there. Its names
// are those of OpenTelemetry's semantic conventions, and loadline.db.reason is that of the
// metric loadline.db.choices. The zero span records nothing.
type span struct{ trace.Span }

// span begins one if the caller is traced: a statement without a request around it
// says nothing that the metrics do not.
func (r *Router) span(ctx context.Context, operation, sql string) (context.Context, span) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, span{}
	}
	attributes := append(make([]attribute.KeyValue, 0, 3), semconv.DBSystemNamePostgreSQL, semconv.DBOperationName(operation))
	if sql != "" {
		attributes = append(attributes, semconv.DBQueryText(sql)) // the values are not in it
	}
	ctx, s := r.tracer.Start(ctx, "postgresql "+operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return ctx, span{s}
}

// served notes who answers.
func (s span) served(l *lease) {
	if s.Span != nil {
		s.SetAttributes(semconv.ServerAddress(l.node.host), semconv.ServerPort(l.node.port), attribute.String("loadline.db.reason", reasonNames[l.why]))
	}
}

// size notes how many statements go together.
func (s span) size(n int) {
	if s.Span != nil {
		s.SetAttributes(semconv.DBOperationBatchSize(n))
	}
}

// finish ends it. It may be called twice.
func (s span) finish(err error) {
	if s.Span == nil {
		return
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) && !errors.Is(err, context.Canceled) { // whose caller has gone
		if code := sqlState(err); code != "" {
			s.SetAttributes(semconv.DBResponseStatusCode(code), semconv.ErrorTypeKey.String(code))
		} else {
			s.SetAttributes(semconv.ErrorTypeKey.String(fmt.Sprintf("%T", err)))
		}
		s.SetStatus(codes.Error, err.Error())
	}
	s.End()
}

// txRows are those of a statement in a transaction that is traced, or only reads.
type txRows struct {
	pgx.Rows
	tx   *tx
	span span
}

func (t *txRows) Next() bool {
	if t.Rows.Next() {
		return true
	}
	t.Close()
	return false
}

func (t *txRows) Close() {
	t.Rows.Close()
	t.span.finish(t.Rows.Err())
}

func (t *txRows) Err() error { return t.tx.named(t.Rows.Err()) }
