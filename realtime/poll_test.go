package realtime_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/realtime"
)

// A poll is told where it is, waits for what is new, is brought what it has missed, and told when that is gone.
func TestPoll(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, where func(*realtime.Config)) {
		g := open(t, quiet(where))
		g.publish(t, "article:a", "old")
		ann := as("ann", "")
		first := g.poll(t, ann, `{"channels":{"article:a":{}}}`)
		here := first.Channels["article:a"]
		if first.Status != 200 || here.Epoch == "" || here.Offset != 1 || first.data("article:a") != "" {
			t.Fatalf("%+v", first)
		}
		from := func(offset uint64, epoch string, wait float64) string {
			return fmt.Sprintf(`{"channels":{"article:a":{"offset":%d,"epoch":%q}},"wait":%g}`, offset, epoch, wait)
		}
		// Nothing is new.
		began := time.Now()
		nothing := g.poll(t, ann, from(1, here.Epoch, 0.3))
		if took := time.Since(began); took < 300*time.Millisecond || nothing.data("article:a") != "" || nothing.Channels["article:a"].Offset != 1 || !nothing.Channels["article:a"].Recovered {
			t.Errorf("%+v after %v", nothing, took)
		}
		// Something comes.
		go func() {
			time.Sleep(200 * time.Millisecond)
			g.publish(t, "article:a", "new")
		}()
		came := g.poll(t, ann, from(1, here.Epoch, 20))
		if came.data("article:a") != `"new"` || came.Channels["article:a"].Offset != 2 {
			t.Errorf("%+v", came)
		}
		// Something was missed.
		g.publish(t, "article:a", "third")
		missed := g.poll(t, ann, from(1, here.Epoch, 20))
		if missed.data("article:a") != `"new" "third"` || missed.Channels["article:a"].Offset != 3 || missed.Channels["article:a"].Epoch != here.Epoch || !missed.Channels["article:a"].Recovered {
			t.Errorf("%+v", missed)
		}
		// What was missed is gone.
		began = time.Now()
		gone := g.poll(t, ann, from(1, "another", 20))
		if gone.Channels["article:a"].Recovered || gone.Channels["article:a"].Offset != 3 || gone.Channels["article:a"].Epoch != here.Epoch || time.Since(began) > 10*time.Second {
			t.Errorf("%+v", gone)
		}
	})
}

// A state that the client has is not sent again and again.
func TestPollOfState(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, where func(*realtime.Config)) {
		g := open(t, quiet(where))
		g.publish(t, "state:s", "one")
		first := g.poll(t, as("ann", ""), `{"channels":{"state:s":{}}}`)
		here := first.Channels["state:s"]
		if first.data("state:s") != `"one"` || here.Offset != 1 {
			t.Fatalf("%+v", first)
		}
		began := time.Now()
		same := g.poll(t, as("ann", ""), fmt.Sprintf(`{"channels":{"state:s":{"offset":1,"epoch":%q}},"wait":0.4}`, here.Epoch))
		if time.Since(began) < 400*time.Millisecond || same.data("state:s") != "" {
			t.Errorf("%+v after %v", same, time.Since(began))
		}
		g.publish(t, "state:s", "two")
		g.publish(t, "state:s", "three")
		latest := g.poll(t, as("ann", ""), fmt.Sprintf(`{"channels":{"state:s":{"offset":1,"epoch":%q}},"wait":20}`, here.Epoch))
		if latest.data("state:s") != `"three"` || latest.Channels["state:s"].Offset != 3 {
			t.Errorf("%+v", latest)
		}
	})
}

// When Redis has been emptied, and another state is there, it is told: its place is one of another epoch.
func TestStateAfterFlush(t *testing.T) {
	t.Parallel()
	redis := stacktest.StartRedis(t)
	g := open(t, quiet(func(c *realtime.Config) { c.Redis = []string{"redis://" + redis.Address} }))
	for i := range 5 {
		g.publish(t, "state:s", i)
	}
	here := g.poll(t, as("ann", ""), `{"channels":{"state:s":{}}}`).Channels["state:s"]
	if here.Offset != 5 {
		t.Fatalf("%+v", here)
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redis.Address}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Do(t.Context(), client.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	g.publish(t, "state:s", "new")
	after := g.poll(t, as("ann", ""), fmt.Sprintf(`{"channels":{"state:s":{"offset":5,"epoch":%q}},"wait":20}`, here.Epoch))
	if c := after.Channels["state:s"]; after.data("state:s") != `"new"` || c.Offset != 1 || c.Epoch == here.Epoch {
		t.Errorf("%+v", after)
	}
}

// Polls may what others may.
func TestPollPermissions(t *testing.T) {
	t.Parallel()
	g := open(t, quiet(func(c *realtime.Config) { c.MaxChannels = 12 }))
	a := g.poll(t, as("ann", "acme"), `{"channels":{"acme/article:a":{},"acme/user:ann":{},"acme/user:bob":{},"article:a":{},"other/article:a":{},"acme/plain:a":{},"nothing":{}}}`)
	if a.Status != 200 || len(a.Channels) != 2 || fmt.Sprint(a.Denied) != "[acme/plain:a acme/user:bob article:a nothing other/article:a]" {
		t.Errorf("%+v", a)
	}
	began := time.Now()
	if a := g.poll(t, as("ann", ""), `{"channels":{"user:bob":{}}}`); len(a.Channels) != 0 || len(a.Denied) != 1 || time.Since(began) > 10*time.Second {
		t.Errorf("%+v after %v", a, time.Since(began))
	}
	for body, want := range map[string]int{
		`{"channels":{}}`: 400, `no JSON`: 400,
		`{"channels":{"a:1":{},"a:2":{},"a:3":{},"a:4":{},"a:5":{},"a:6":{},"a:7":{},"a:8":{},"a:9":{},"a:10":{},"a:11":{},"a:12":{},"a:13":{}}}`: 400,
	} {
		if a := g.poll(t, as("ann", ""), body); a.Status != want {
			t.Errorf("%s: %+v", body, a)
		}
	}
	if a := g.poll(t, http.Header{}, `{"channels":{"article:a":{}}}`); a.Status != 401 {
		t.Errorf("a stranger: %+v", a)
	}
}

// A drain answers those who wait.
func TestPollDrained(t *testing.T) {
	t.Parallel()
	g := open(t, quiet())
	first := g.poll(t, as("ann", ""), `{"channels":{"article:a":{}}}`)
	body := fmt.Sprintf(`{"channels":{"article:a":{"offset":%d,"epoch":%q}}}`, first.Channels["article:a"].Offset, first.Channels["article:a"].Epoch)
	answered := make(chan answer, 1)
	go func() { answered <- g.poll(t, as("ann", ""), body) }()
	time.Sleep(200 * time.Millisecond)
	g.stop()
	select {
	case a := <-answered:
		if a.Status != 200 || !a.Channels["article:a"].Recovered {
			t.Errorf("%+v", a)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it still waits")
	}
	if a := g.poll(t, as("ann", ""), body); a.Status != 503 {
		t.Errorf("after the drain: %+v", a)
	}
}
