// Package adminport watches a running [stack.Stack], and serves what it sees beside what package live sees of the application's instances: the page
// for people, the same as JSON for programs, and faults.
//
// It asks every service once a second whether it still answers, because a paused
// or hung server keeps its process, its port and its connections, and measures
// how far each replica is behind the primary.
package adminport
