// Package cachemodel checks the protocol of package cache: that sessions see their own
// writes and handlers the cause of their events through two tiers of cache, a replica
// and a relay, whatever is lost, late or dead.
//
// [Explore] visits every state that a [Run] can reach within its bounds, every order of
// every step, nearest first. It finds no more than its bounds allow, and misses nothing
// within them. [Runs] hold. [Mutations] switch one [Rule] off each, and show what goes
// wrong: a rule without a mutation is one that nobody needs.
//
// # What is modelled
//
// One key and one tag, versions 0 to 3, two sessions, two processes with their L1, one
// primary, one replica, one relay, and two epochs of Redis, of which the second is empty at
// first. Version 0 is at LSN 1. A step is one message, one statement or one script.
// Of the protocol are the functions inv, invTag, acquire, set, merge, covered and relayStep;
// package cache has the same names.
//
// Three things are checked. read_your_writes: a read never gives less than the session
// has written, or than the cause of the event that it handles. no_stale_fill: what may be read
// in Redis or in an L1 is not older than what was told to it, and when all is
// quiet it is what the database has. no_lease_hang: whoever waits goes on at some time.
//
// # What is not
//
// Time: a lease, a value or a record may end whenever its durations allow, and all
// durations are orders ("not before the replica has passed the fence"). Livelock: a load that is
// refused for ever is no violation. Promotion of PostgreSQL's replica, Redis Cluster,
// concurrent requests of one session, more than one key or tag, more than two epochs,
// two relays at once. What an eviction does until the relay has found it and all have heard of
// it is not held against the protocol. Sessions without a token may be answered with the past; reads are not
// monotonic.
//
// # Reading a counterexample
//
//	go test ./internal/model/cache -v -run TestRulesAreNeeded/set-ignores-tag-fence
//
//	S0 commits v1 in P0: record at LSN 2, not yet visible
//	v1 visible on the primary; S0 reads LSN 2
//	S0's direct inv of v1: acknowledged; token LSN 2, 0/1
//	S1 starts a read in P0 (epoch 0 W=0 D=1)
//	S1 misses, takes the lease as of 1, fence 1
//	S1 asks the replica (replay LSN 1, needed 1)
//	S1 reads row v0
//	S1 sets v0: accepted
//
// S is a session, P a process, v1 the version that the first write makes. 0/1 is number 1
// in epoch 0. W is the last number that the process has heard, D the last drained mark. "As of
// 1" is the counter when the lease was given. No shorter path leads there, and every line is needed or
// is an accident of equals: the model has no preference for P0. Ask of each line which message
// has not arrived yet; here it is none, and the replica is behind.
//
// The whole of [Runs] takes an hour on a machine that does other things, and 5 GB:
//
//	LOADLINE_SLOW=1 go test -timeout 2h -v -run TestRunsHold ./internal/model/cache
package cachemodel
