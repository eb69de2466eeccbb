// Package redisstore keeps the answers to requests with an idempotency key in Redis, for handlers whose effect is not in
// a transaction: a call to another service, a message, a file.
//
//	store, err := redisstore.New(client, redisstore.Config{})
//	idempotent, err := edge.Idempotency(edge.IdempotencyConfig{Store: store, Principal: principal})
//
// A request claims its key for as long as it runs, by a lease that is renewed; then its answer is kept. So of
// requests with one key one runs at a time, and a repetition is given the answer. It is not exactly once: when a process
// dies after the effect and before the answer is kept, when Redis fails over before a replica has heard of it, or drops
// the key to make room, a repetition runs again; and so does one of a handler that has answered with a status from 500 on,
// panicked, or said more than 8 MiB, whatever it had done before. Let Redis have a maxmemory-policy of noeviction, and give
// [edge.KeyOf] to the other service, as its key. For effects in PostgreSQL package pgstore has none of these holes.
//
// While Redis is away, requests on routes that require a key are refused (503), and others run as they do without a key:
// see edge.IdempotencyConfig.Required.
package redisstore
