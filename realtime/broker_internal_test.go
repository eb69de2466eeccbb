package realtime

import (
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge"
)

// What many ask at once is asked once more than it is under way, and never answered by what was asked before.
func TestQuestions(t *testing.T) {
	t.Parallel()
	b := &broker{asked: make(map[string]*question)}
	began, answered := make(chan bool, 10), make(chan bool)
	var asked sync.Mutex
	n := uint64(0)
	ask := func(h *history) {
		asked.Lock()
		n++
		h.top = centrifuge.StreamPosition{Offset: n}
		asked.Unlock()
		began <- true
		<-answered
	}
	got := make(chan uint64, 100)
	var asking sync.WaitGroup
	one := func() { asking.Go(func() { got <- b.once("a", ask).top.Offset }) }
	one()
	<-began
	for range 20 {
		one()
	}
	time.Sleep(50 * time.Millisecond) // they wait
	answered <- true
	<-began
	one() // while the second is asked
	time.Sleep(50 * time.Millisecond)
	answered <- true
	<-began
	answered <- true
	asking.Wait()
	close(got)
	count := make(map[uint64]int)
	for offset := range got {
		count[offset]++
	}
	if len(count) != 3 || count[1] != 1 || count[2] != 20 || count[3] != 1 {
		t.Errorf("by the number of the question: %v", count)
	}
	if len(b.asked) != 0 {
		t.Errorf("%d questions are left", len(b.asked))
	}
}
