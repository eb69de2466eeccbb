// Package contract tests a running Conduit server, or several instances of it,
// against the RealWorld API.
//
// A handler test proves what one process does with one request. The promises
// that break in production lie between requests: a write on one instance read
// on another, two users who favourite the same article at once, a flag of one
// user served to the next, a page that repeats an article. [Run] makes those
// promises over plain HTTP, so it holds for any way of running the servers:
// behind a balancer, with replicas, with a cache.
//
// Requests go to the addresses of [Target] in turn, so a read usually reaches
// another instance than the write before it. Each answer is validated against
// openapi.yml (the status must be documented for the operation, no field may be
// missing, of a wrong type or undeclared), and at the end Run fails if an
// operation was never called or a documented status never seen, apart from a
// short list with reasons.
//
//	func TestContract(t *testing.T) {
//		contract.Run(t, contract.Target{URLs: []string{"http://127.0.0.1:8080"}, JWTSecret: secret})
//	}
//
// The suite makes its own users, articles and tags under names that are unique
// to the run, and deletes its articles at the end. It shares the database with
// other data and other clients, and can be run any number of times.
//
// Where the contract is silent the suite asserts what Conduit chose; README.md
// of the application lists these choices. It measures no speed, and what it
// finds under concurrency it finds by chance: a race may need more than one run.
//
// openapi.yml is the file of the RealWorld project, unchanged, under the
// licence in LICENSE.openapi.
package contract
