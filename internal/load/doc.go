// Package load puts an open load on a server and measures what its users would feel.
//
// A client that sends its next request when the last one was answered slows down
// with the server: in a stall of one second it notes one slow answer, where a
// thousand users would have waited. Such closed loops, and open ones that time a
// request from when they got around to sending it, hide overload by factors of tens
// (Schroeder, Wierman and Harchol-Balter, "Open Versus Closed: A Cautionary Tale",
// NSDI 2006; Gil Tene calls it coordinated omission).
//
// Here every arrival has its time before the run begins, from a seed: [Poisson] by
// default, so that queues form as they do in production. An arrival starts a
// [Journey], a Go function that makes requests and keeps state; nothing ever waits
// for a free place. Each request is timed from when it was due ([RouteReport].Response,
// what a user waits), and from when it had a connection ([RouteReport].Service, what
// the server took); both stand in the report, with the wait for a connection and the
// lag of the generator between them. Connections are bounded, and the wait for one
// counts.
//
// [Run] follows steps and ramps. [FindKnee] searches the highest rate that a server
// sustains, and gives an interval whose ends have both been tried twice.
//
// # Guarantees
//
//   - The same configuration and seed give the same arrivals, journeys and users.
//   - No arrival is left out: each one is good, failed, dropped or cut off, and counted
//     as such. A time-out stands in the histogram at its limit, and a drop is a miss of
//     the SLO.
//   - A run whose generator was late, short of processor time or of connections, or sent
//     nothing, is [Void], and neither passed nor failed.
//   - Only loopback addresses and the hosts in [Config.AllowRemote] are dialled.
//   - Run ends within the drain's bound, and within seconds of its context's end.
//
// # What it does not do
//
// It speaks HTTP/1.1 and what journeys do in [User.Time]; no HTTP/2. One process on
// two cores is honest up to some thousand requests per second; for more, run several
// and [Merge]. It does not observe the server: which resource the knee comes from is
// for others to say. A server in the same process is counted as the generator's
// processor time. Percentiles below some milliseconds are the scheduler's on a busy
// machine. The finder assumes that what is sustained at a rate is sustained at all
// lower ones.
package load
