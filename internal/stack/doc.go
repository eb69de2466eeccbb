// Package stack runs what a Go + PostgreSQL backend meets in production on one
// machine: a PostgreSQL primary with streaming replicas, Redis, a NATS server
// with JetStream, and any number of instances of an application behind one
// address.
//
// Layers such as read/write splitting, caching or an event mesh fail where real
// servers meet, with lag, crashes and restarts. Mocks show none of that, and
// containers ask for a daemon, images and a network. Here every server is the
// real binary, found on the machine, run as a child process in its own process
// group, with its data under one directory. Start to ready takes a few seconds,
// so tests and a developer's desk use the same stack.
//
// [Open] takes the directory's lock, ends what an earlier run left behind when
// it was killed, and starts the servers. [Stack.StartApp] adds the application.
// A child that dies is reported by name through [Config.Notify]; the others go
// on, as they would in production. [Stack.Close] stops everything in order.
//
// The servers listen on the loopback address and ask for no password: this is a
// stack for development and tests on a machine whose users trust each other.
// It runs on Linux and macOS; it does not restart dead children, and it is no
// way to run a database in production.
package stack
