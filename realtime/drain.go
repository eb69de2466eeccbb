package realtime

import (
	"time"

	"github.com/centrifugal/centrifuge"
)

// drainStep is between two batches.
const drainStep = 50 * time.Millisecond

// drain sends clients away at an even pace. Those that come back go to the other gateways, at that pace.
func (g *Gateway) drain() {
	if g.draining.Swap(true) {
		return
	}
	connections := g.node.Hub().Connections() // in an order of their own
	if len(connections) == 0 {
		return
	}
	g.log.Info("realtime: drains", "connections", len(connections), "over", g.c.Drain)
	began, sent, total := time.Now(), 0, len(connections)
	for _, c := range connections {
		c.Disconnect(centrifuge.DisconnectForceReconnect)
		if sent++; sent == total {
			break // nobody is left to wait for
		}
		// Where it should be by now, of all.
		for due := began.Add(time.Duration(float64(g.c.Drain) * float64(sent) / float64(total))); time.Until(due) > drainStep; {
			time.Sleep(drainStep)
		}
	}
	for limit := time.Now().Add(time.Second); g.node.Hub().NumClients() > 0 && time.Now().Before(limit); {
		time.Sleep(drainStep)
	}
}
