// Package pgstore keeps the answers to requests with an idempotency key in PostgreSQL, in the transaction of the request's
// effect: either both are there or neither, whatever dies when. That is the only way in which a request has exactly
// one effect.
//
//	store, err := pgstore.New(router, pgstore.Config{})
//	idempotent, err := edge.Idempotency(edge.IdempotencyConfig{Store: store, Principal: principal})
//
// The store opens a transaction, takes an advisory lock of the key, which is not waited for, looks for an answer, and runs
// the handler. What that does in the transaction of the context it is given, such as by router.InTx, which joins it,
// by router.Write, or by outbox.Add, is committed with the answer; then the answer is sent. A handler that fails, or
// answers with a status from 500 on, has done nothing.
//
// So a key changes what a handler may do: all its statements are on one connection, one after the other, rows read to
// their end; a statement that fails has failed the transaction, and what it answers with a status below 400 after that is 500;
// what it leaves to goroutines that outlive it finds the transaction ended.
//
// What a handler does elsewhere, such as a call to another service, is not undone. Its transaction is open for as
// long as the handler runs, and so is one of the router's connections: what takes long belongs into an
// event's handler.
package pgstore
