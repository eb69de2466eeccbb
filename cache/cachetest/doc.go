// Package cachetest is for the tests of applications that use package cache: a cache whose time passes when the
// test says so, and an attack that finds out whether the application ever gives what was invalidated.
//
// Tests of code that reads by a cache need neither Redis nor waiting. [Open] returns a store in this process and
// its [Clock]: what was invalidated, and what has ended, is loaded anew at once.
//
//	store, clock := cachetest.Open(t)
//	articles := NewArticles(store, db) // the code under test
//	…
//	clock.Advance(time.Hour)
//
// Whether an application's writes name all that they change, its loads read where the context says, and its
// sessions get through to both, shows under load alone, with replicas that lag. [Attack] has writers and
// readers at the application's processes: readers are told of the last write, by its token, and must be given nothing
// older; others, who were told nothing, fill the caches with what they find. When all is quiet, what
// the caches have is compared with what was written.
//
//	cachetest.Attack{}.Run(t.Context(), t, cachetest.Application{Processes: 3, Write: …, Read: …})
//
// The servers are the application's to start, and to disturb: an attack on one PostgreSQL without replicas finds
// little. What was not stale in an attack may be so in a longer one: break a rule on purpose, such as the call of
// outbox.AddInvalidation, and see that [Attack.Measure] counts stale reads, before relying on it.
package cachetest
