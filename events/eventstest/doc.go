// Package eventstest holds drivers of package events to its contract, and types of events
// to what their readers rely on.
//
// [Run] is the contract's suite for a driver's own tests: what goes in comes out byte for
// byte, no failure is silent, nothing is lost or stuck, keys stay in order, and what fails ends
// among the dead letters, once. [RunFaults] is the part that stops, kills and pauses the broker,
// and ends with a ledger: what was acknowledged has had its effect. Drivers that lack a
// capability, by [events.Capabilities], pass over what needs it, and say so.
//
// [Golden] is for applications: it fails when the JSON of a type of events loses a field or
// changes the type of one, which readers of that version would not survive.
//
// The suite sees a broker from its clients' side: it knows nothing of replication, and a
// process that is killed is not a machine that loses its power.
package eventstest
