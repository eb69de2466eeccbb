// Package check asks the servers of an environment whether they are there, and as
// Loadline's packages need them: PostgreSQL's roles, lag and limits, Redis'
// persistence and eviction, JetStream's account and streams. It answers before an
// application is started what would otherwise be found out by an incident: a replica's
// address that leads to the primary, a Redis that drops what must be kept, a broker
// without room for its streams.
//
// Each server is asked by its own goroutine within its own time, so that one that
// hangs neither holds nor hides the others. Nothing is written to any of them.
//
// It sees one moment of what one role may see. That a standby can be promoted, that a
// backup can be restored, and how much load there is room for, it does not know.
package check
