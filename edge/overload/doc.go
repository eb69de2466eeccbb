// Package overload keeps a service that is asked for more than it can do at what it can do: so many requests at a time
// as it serves without being slower for it, a short queue, and an answer of 503 at once for who does not fit, the least
// important first.
//
//	shed, err := overload.New(overload.Config{Ceiling: 2 * connections})
//	handler = shed.Handler(handler)
//
// How many at a time is found out while it runs, by failsafe-go's adaptive limiter, from how times of service go with
// concurrency; it comes to rest at some multiple of what is best, so give it a Ceiling: what all requests wait for in
// the end, a pool of connections mostly, times two. Who is important is said by the request's [Class]: each has a
// part of the queue, so that who is shed first is [Background], then [Anonymous], [Reads], [Writes].
//
// Streams, WebSockets and long polls are [Exempt], as are questions about health: they take as long as they
// take, and count for nothing. Nor does shedding make a process unready: the load would fall on the others.
package overload
