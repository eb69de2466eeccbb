// Package statuspage watches a running [stack.Stack] and shows it: a page for
// people, and the same as JSON for programs.
//
// It asks every service once a second whether it still answers, because a paused
// or hung server keeps its process, its port and its connections, and measures
// how far each replica is behind the primary. It keeps no history.
package statuspage
