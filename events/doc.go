// Package events carries what has happened from the service that did it to all that
// want to know: typed, durable, at least once, to groups of consumers.
//
// A type of event is defined once, with its version:
//
//	var ArticlePublished = events.Define[Published]("article.published", events.V1)
//
// It is published by a transaction (package outbox), so that it is published if and only
// if the transaction commits; or directly, by a [Publisher], where losing it with the
// process is acceptable. [Handle] gives each event of a type to a function, of one member
// of each group. A handler that fails is tried again with delays, and after five deliveries
// the event goes to the dead letters; so does what nobody understands. An event may be
// delivered twice: the effect is there once if the handler's own transaction says so
// (package inbox).
//
// Types with a key keep the order of each key's events, through retries, restarts and
// any number of members: there are 16 partitions, and in each one event at a time. What
// fails holds back the events of its partition that come after it.
//
// A handler's context carries what the event's writer had seen ([causal.Session]), so that
// what it reads has the event's cause in it; the tenant; and the trace.
//
// The package knows no broker: a [Driver] does, such as events/natsjs, and is held to the
// contract by events/eventstest. Each message is at once the JSON of [Message] and a
// CloudEvents 1.0 message in binary mode, so that others can read and write it.
package events
