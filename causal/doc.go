// Package causal carries what a client has seen, so that nothing shows it the past.
//
// A write on PostgreSQL's primary is not yet on its replicas, nor in a cache that is
// told of it later. A user who saves and reloads meets the old page. A [Token] says
// how far its holder has seen: one [Mark] per database cluster, a position in the
// write-ahead log. Who answers the holder's next read, be it a replica or a cache, has
// at least reached the mark. A [Session] collects marks during a request; it travels in
// the context, between requests as a cookie or the header Causal-Token (see
// [HTTP]), to other services by a [Transport], in an event, or, for clients that keep nothing, in a [Store] by principal.
//
// The package compares and carries; it does not wait, and knows no database. Package db
// adds marks after each write and honours them at each read.
//
// It guarantees that merging loses no mark: a token that cannot hold all of them says so
// ([Token.Incomplete]), and its holder then reads the primary. It does not hide what a
// token says from its holder, since a log position is no secret; it is signed, so that
// no one can invent one.
//
// docs/causal-token.md specifies the format for other languages.
package causal
