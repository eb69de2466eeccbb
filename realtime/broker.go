package realtime

import (
	"fmt"

	"github.com/centrifugal/centrifuge"
	"golang.org/x/sync/singleflight"
)

// broker asks Redis once for what many want to know at the same time: after a restart all clients ask for the history of the same channels. What
// centrifuge has for that, Config.UseSingleFlight, is one for all nodes of a process, and gives one gateway the history of another with other channels
// of the same name.
type broker struct {
	*centrifuge.RedisBroker
	asked singleflight.Group
}

type history struct {
	publications []*centrifuge.Publication
	top          centrifuge.StreamPosition
}

// History implements [centrifuge.Broker]. What it returns is shared, and not to be changed.
func (b *broker) History(channel string, o centrifuge.HistoryOptions) ([]*centrifuge.Publication, centrifuge.StreamPosition, error) {
	since := centrifuge.StreamPosition{}
	if o.Filter.Since != nil {
		since = *o.Filter.Since
	}
	key := fmt.Sprintf("%q %d %v %d %s %v", channel, since.Offset, o.Filter.Reverse, o.Filter.Limit, since.Epoch, o.MetaTTL)
	found, err, _ := b.asked.Do(key, func() (any, error) {
		publications, top, err := b.RedisBroker.History(channel, o)
		return history{publications, top}, err
	})
	h := found.(history)
	return h.publications, h.top, err
}
