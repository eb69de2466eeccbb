package natsjs

import (
	"testing"
	"time"
)

// After a while in which the process stood still, what it held is somebody else's.
func TestWhatIsNoLongerHeldIsLeft(t *testing.T) {
	t.Parallel()
	f := newFeed(nil, "group", time.Hour)
	stale, fresh := &delivery{}, &delivery{}
	f.queue = []held{{stale, time.Now().Add(-2 * time.Hour)}, {fresh, time.Now()}}
	if d, ok := f.next(t.Context()); !ok || d != fresh {
		t.Errorf("next is %p, %v, not the fresh one, %p", d, ok, fresh)
	}
	if d, ok := f.next(t.Context()); ok {
		t.Errorf("there is one more, %p", d)
	}
}
