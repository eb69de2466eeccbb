// Package routing compares ways to send reads to replicas, on real servers: how many
// of them replicas take, and how many show a user less than he has written.
//
// The ways are db.Router with a token per user, GORM with its dbresolver plugin, and
// the user's reads kept on the primary for some time after each of his writes, as Rails
// does. It holds tests and benchmarks alone.
package routing
