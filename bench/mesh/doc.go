// Package mesh compares ways from a writer's transaction to a handler, on real servers: how
// long one takes, and how many go through in a second.
//
// The ways are an outbox with its relay, JetStream and a consumer; River, whose jobs are rows
// that its workers fetch; and Watermill's SQL publisher and subscriber. The writers are the
// same. Ours has a broker more on its way, from which other services can read. It holds
// benchmarks alone.
package mesh
