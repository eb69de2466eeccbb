// Package realtime tells browsers what has changed: a gateway for WebSocket, server-sent events, HTTP streaming and plain long polling, all of
// which bring what was missed while a client was away, with the same permissions.
//
//	gateway, err := realtime.Open(ctx, realtime.Config{
//		Redis:        []string{"redis://localhost:6379"}, // none: one process
//		Authenticate: session,
//		Namespaces:   map[string]realtime.Namespace{"article": {Subscribe: realtime.Anyone, History: 100, HistoryAge: 5 * time.Minute}},
//	})
//	mux.Handle("/realtime/", http.StripPrefix("/realtime", gateway.Handler()))
//	go gateway.Run(ctx) // until ctx is done: then it drains
//	err = gateway.Publish(ctx, realtime.Publication{Channel: realtime.ChannelOf(ctx, "article", slug), Data: comment})
//
// A channel is tenant/namespace:name, or namespace:name where there are no tenants; who asks for one is of its tenant, and is allowed by its
// namespace, or hears the same refusal as for one that there is not. A publication has its place in the channel's history, so that a client that
// comes back says how far it was and is given the rest; where that is gone, it is told so, and reads anew what the channel is about. With the
// token that a publication carries it reads no state from before the publication.
//
// Package realtime/fromevents publishes what events say, realtime/jwtauth knows clients by JWT, and realtime/js is the browser's side; that of
// centrifuge, github.com/centrifugal/centrifuge-js, works as well. All of it stands on github.com/centrifugal/centrifuge.
//
// It is no message queue: what a channel's history does not hold any more is lost to who was away, and who publishes is not told who has heard it.
package realtime
