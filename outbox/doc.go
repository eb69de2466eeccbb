// Package outbox publishes events if, and only if, the transaction that they tell of
// commits.
//
// A service that writes to its database and then to a broker loses events when it dies
// between the two; the other way round, it tells of what never happened. Here the event
// is a row, inserted by the writer's own transaction:
//
//	err := box.Add(ctx, tx, event)   // in the transaction
//	relay.Wake()                     // after its commit
//
// A [Relay] publishes the rows by an [events.Driver] and moves them to an archive, from
// which [Republish] can drive a lost stream again.
//
// # Guarantees
//
//   - no_lost_event: what is committed is published at least once, whatever dies.
//     It may be published twice, with the same ID; package inbox makes the effect one.
//   - Events of a key are published in the order of their rows, for writers that lock the
//     key's own row (SELECT … FOR UPDATE, or an UPDATE) before they add the event. Others
//     have no order to keep.
//   - Each event carries a token at or past its writer's commit: a handler that reads by
//     it finds what the event tells of.
//   - A broker that is away costs disk, and no transaction, no attempt, no event. What it
//     never takes goes to loadline.outbox_dead.
//   - One relay per shard publishes; a successor first ends the backend of the one before.
//
// It does not guarantee that an event is published once, nor any order between keys, nor
// that a broker keeps what it has acknowledged.
package outbox
