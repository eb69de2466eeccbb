// Package realtime measures what a connection of the gateway costs, and how long a publication takes to all who listen, beside a bare WebSocket
// server, github.com/lxzan/gws, which knows no channels, permissions or history.
package realtime
