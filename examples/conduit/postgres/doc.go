// Package postgres stores Conduit in PostgreSQL.
//
// The statements are in queries/, each a constant number of round trips per
// call whatever the number of rows, and each with the index it walks; sqlc
// turns them into package sqlc. The schema is in migrations/. Store puts the
// domain's types and errors on top.
//
// All statements go through one seam, DB, which says of each whether it reads,
// writes, or belongs to a transaction. Primary implements it on one pool; an
// implementation with replicas can take its place.
//
// Nothing is looked up before it is inserted: unique indexes and foreign keys
// decide, and their errors become errors of the domain. Counters are kept by
// triggers, see migrations/00001_conduit.sql.
//
// The package does not retry. An error that a later attempt may not meet
// (no connection, a timeout, the victim of a deadlock) wraps
// conduit.ErrUnavailable.
package postgres

//go:generate sqlc generate -f ../sqlc.yaml
