package cache

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/loadlinehq/loadline/causal"
)

// A view is large, and there is another with each resync: no value that is kept keeps its view.
func TestViewsAreLetGo(t *testing.T) {
	t.Parallel()
	s, err := OpenStore(t.Context(), StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c, err := New(s, Config[string, int]{Name: "item", Class: Hot()})
	if err != nil {
		t.Fatal(err)
	}
	var views []weak.Pointer[view]
	for i := range 20 {
		// Another relay was there meanwhile.
		if _, err := s.Tick(t.Context(), causal.Mark{System: 1, Timeline: 1, LSN: causal.LSN(i + 1), Epoch: 1}); err != nil {
			t.Fatal(err)
		}
		views = append(views, weak.Make(s.view.Load()))
		if _, err := c.Get(t.Context(), fmt.Sprint(i), func(context.Context) (int, error) { return i, nil }); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		kept = 0
		for _, v := range views {
			if v.Value() != nil {
				kept++
			}
		}
		if kept <= 1 {
			break
		}
	}
	if kept > 1 {
		t.Errorf("%d of %d views are kept", kept, len(views))
	}
	if n := c.tier1.EstimatedSize(); n != 20 {
		t.Errorf("%d values are kept: this tests nothing", n)
	}
}
