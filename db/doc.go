// Package db sends reads to PostgreSQL's replicas, and never shows a session the past.
//
// A replica is behind its primary by milliseconds, or by seconds when it has work to
// do. A user who saves and reloads meets the old page. A [Router] notes in the context's
// [causal.Session] where in the write-ahead log each write was committed, asked for in
// the commit's own round trip, and sends the session's reads to the least busy replica
// that has come that far; if none has, it waits a little for one, and then reads the
// primary. The intent is explicit, [Router.Read] or [Router.Write]: no SQL is parsed. A
// write among reads is an error, also where there is no replica.
//
// Which server is the primary is asked, all the time: a failover is followed, an old
// primary that still runs is not written to again, and an acknowledged write that the
// failover has lost is reported.
//
// It does not pool across processes, retry writes, or wait for replicas to confirm a
// write. A session's guarantee ends where its token does: see package causal.
package db
