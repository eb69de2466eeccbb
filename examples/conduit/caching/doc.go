// Package caching puts package cache under Conduit: what everyone sees of articles, lists, tags, profiles and
// comments comes from this process or Redis, and what one viewer thinks of it from the database.
//
// It keeps parts, and puts together what a client asks for: an article has no more of its author than the id,
// a page of a list is ids. So a favourite ends two entries and the list of one fan, and a new picture of an author
// one, however many pages show it. What is kept has no field for a viewer's marks, so that they cannot leak.
//
// [Store] is an httpapi.Store over a postgres.Store, of which a write tells in its transaction what it changes
// (postgres.Changes); targets.go says what that ends. [Caches] are the tiers, which the outbox's relay must have for
// its Invalidator. Without Redis the Store reads the database, and goes on trying.
//
// Not kept: a viewer's marks, feed and notifications, and what may come later anyway (views, popular tags); and pages
// beyond the first 200 articles of a list, which hardly anyone asks for and each publication would change.
package caching
