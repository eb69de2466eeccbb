// Package live tells browsers what happens while they look: comments on an article, written and deleted, and that a user has a notification. It is a
// gateway of package realtime in each instance, and what it tells comes from the events of package mesh: one group of all instances publishes each of
// them once, by Redis to those instances that have somebody who listens.
//
// Channels go by ids, for a slug may have signs of any script and be too long for a channel, and changes with its title: who looks at the article under
// its old name still hears. The API's answers name the channel of what they are about.
//
// A comment is told as anybody sees it, so that nothing need be read. Of a notification a browser is told the kind alone: it reads the list, with the
// token of the publication, and so sees what it was told of. Deleted articles are not told.
package live
