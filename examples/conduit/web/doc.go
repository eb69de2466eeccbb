// Package web is a small page of Conduit for browsers: articles, live comments, a user's notifications, and what the connection does. It is one document
// with a module and a style sheet in this program; there is no build, and nothing is loaded from elsewhere.
//
// A browser that has logged in has a cookie, and not the API's token, which a script could be made to give away: the token is in a session, by package
// scs, in Redis, or in this process without one. What the page asks for under /web/api/ is passed to the API in this process, with the session's
// token. Who has not logged in asks the API itself, and needs no session: while Redis is away he reads as before, and who wants to log in is told that
// it cannot be done now.
//
// A logout, and a login as somebody else, ends what the user listens to, once: a connection that asked for the session just before and is not there yet
// stays, and hears that its user has notifications, and of which kind, until the page is closed. It cannot read them. A window that does not listen asks who
// it is when it is looked at again: until then it says the one name, and writes in the other.
package web
