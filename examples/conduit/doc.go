// Package conduit is the domain of Conduit, the RealWorld application: users,
// articles, comments, and the rules that hold for them wherever they come from.
//
// The rules live here once, so that the API and the content loader cannot
// disagree: what a name may contain, how long a text may be, how a title
// becomes a slug, and which errors a request can meet. Package postgres stores
// these types and package httpapi speaks about them.
//
// The package knows neither HTTP nor SQL, and does no I/O. It does not keep
// names unique: that takes the database's unique indexes.
//
// What everyone sees of an article (Article, Profile) is kept apart from what
// one viewer thinks of it (Marks), so that the first can be shared between
// viewers and the second cannot leak.
package conduit
