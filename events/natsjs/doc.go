// Package natsjs is the driver of package events for NATS JetStream: what was published
// is on disk before it is acknowledged, waits for groups that are away, and is delivered
// again until a member has settled it.
//
//	driver, err := natsjs.Open(ctx, natsjs.Config{URL: "nats://127.0.0.1:4222"})
//	if err != nil { … }
//	defer driver.Close()
//	g.Go(func() error { return driver.Run(ctx) }) // makes room, and measures
//
// Open makes three streams: EVENTS, for what is published; DLQ, for what no attempt can
// mend; and ADVISORIES, where the server notes messages that it has given up itself. It
// makes them so that nothing is lost silently, which the server's defaults do: when a stream
// is full, it refuses new messages ([events.ErrBackpressure]) instead of dropping old ones.
// A stream that is there and differs is reported, and left as it is unless Config.Update.
//
// # Subjects
//
// An event of the type article.published goes to events.article.published, and if its type
// is keyed to events.article.published.P07: its partition. The upper case P keeps the two
// apart, since no type has an upper case letter: a type article.p07 is another's subject. A
// dead letter goes to dlq.<subscription>.<type>. [Durable] says how a subscription's name is
// written where dots have a meaning.
//
// # What it does not guarantee
//
// Nothing is stored once: after [events.ErrUnavailable] a message may be there, and one that
// is sent again is found out by its ID for Config.Duplicates alone. A server without replicas
// writes to its disk every two minutes unless it has sync_interval: always, and a loss of power
// takes what it has acknowledged since. Events of a type that is added to a subscription are
// delivered from then on; those that came before, only if the subscription had not come past
// them. A message that a member had got and not begun with counts as delivered.
package natsjs
