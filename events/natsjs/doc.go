// Package natsjs carries events over NATS JetStream: an [events.Driver].
//
//	driver, err := natsjs.Open(ctx, natsjs.Config{URL: "nats://127.0.0.1:4222"})
//	defer driver.Close()
//	go driver.Run(ctx) // housekeeping and metrics
//	consumer, err := events.NewConsumer(driver, events.ConsumerConfig{})
//
// Events are kept in one stream on disk that refuses new ones when it is full (the
// server's default throws old ones away, and tells nobody). Open makes the streams, or checks
// those that are there and says how they differ. Above 80 % of its bounds, what all
// consumers have acknowledged is purged, so that only what somebody still needs can fill it.
//
// A server that is away, restarts, is silent, or full, makes Publish fail within its
// context, and subscriptions go on when it is back, without anything new to be made.
//
// A subject is events.TYPE, and events.TYPE.P07 for partition 7 of a type with keys: a type
// has no capital letters, so that no other can have that subject. A single server is only
// as durable as its sync_interval: with "always" it keeps what it has acknowledged through a
// power failure, and [Config.AtomicBatches] makes that fast.
package natsjs
