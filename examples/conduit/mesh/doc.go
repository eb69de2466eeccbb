// Package mesh is what Conduit publishes and handles: its types of events, and what
// follows from each. Writers record events in the transaction in which they happen, by an
// outbox; handlers have their effect once, by an inbox. Views, of which one may be lost, are
// published directly, outside of the request.
package mesh
