// Package eventstest holds a driver of package events to its contract: on a real broker,
// what is published arrives as it was, in each group, at least once; retries wait and end
// in the dead letters; keys keep their order; a broker that goes away loses nothing and
// hangs nobody. Who writes a driver runs it in a test:
//
//	func TestConformance(t *testing.T) { eventstest.Run(t, eventstest.Broker{Open: …}) }
//
// The cases that stop the broker run where the Broker can be stopped.
package eventstest
