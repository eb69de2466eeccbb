// Package seed fills an empty Conduit with content, so that lists, feeds and
// caches meet what they would meet in production: a few articles and people
// that get most of the attention, and a long tail that gets almost none.
// Uniform test data hides hot rows, deep feeds and cold caches.
//
// The content is real where a folder with it is at hand: questions, comments
// and votes of a public discussion site (see the README beside the data).
// Everything else is generated with the skew measured there. [Open] chooses,
// and [Load] writes it all by COPY in one transaction:
//
//	source, err := seed.Open(dir, 10) // "" generates all of it
//	…
//	result, err := seed.Load(ctx, conn, source, nil)
//
// Generated content is the same every time. Each row is made from its position
// alone and nothing is kept of it, so a thousand times the real site takes the
// memory of one. Ids are in order of time.
//
// The package does not merge into a database with users, does not write
// counters (the schema's triggers do), and does not model traffic: it makes
// what is there, not who reads it. Communities of any size keep the measured
// shape; whether a site of millions has relatively bigger stars than one of
// thousands, the data cannot tell.
package seed
