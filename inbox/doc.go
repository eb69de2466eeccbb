// Package inbox makes the effect of an event happen once, although it is delivered at
// least once: the transaction of the effect also writes down the event's id, for the group
// of consumers, and a second delivery finds it there and does nothing. No cache in front of
// the database can promise that, since it is not in the transaction.
//
//	in, err := inbox.New(inbox.Config{DB: router})
//	events.Handle(consumer, ArticlePublished, inbox.Handle(in,
//		func(ctx context.Context, tx pgx.Tx, e events.Event[Published]) error { … }))
//	go in.Run(ctx) // makes and drops the table's daily partitions
//
// [Handle] and [HandleBatch] open the transaction through DB, so that a db.Router's
// handles join it, and outbox.Add in it publishes what the effect causes. [Once] is a single
// statement for effects that are one.
//
// A failover of the database can lose effects that the broker takes for done; [Inbox.Follow]
// has them made again.
//
// It remembers for a week: an event that is replayed after that has its effect again. What
// a handler does outside of the transaction, such as a call to a third party, it cannot make
// happen once.
package inbox

import "embed"

//go:embed migrations/*.sql
var migrations embed.FS
