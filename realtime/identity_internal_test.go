package realtime

import (
	"testing"
	"time"
)

// Those who came together are asked again in the last fifth of their time, spread over it, and never later.
func TestSpread(t *testing.T) {
	t.Parallel()
	now := time.Now()
	i := Identity{Expires: now.Add(1000 * time.Second)}
	tenths := make(map[int64]int)
	for range 10_000 {
		left := i.expireAt(now) - now.Unix()
		if left < 799 || left > 1000 {
			t.Fatalf("it is asked after %d of 1000 s", left)
		}
		tenths[(left-799)/21]++
	}
	for tenth, n := range tenths {
		if n < 500 || n > 1500 {
			t.Errorf("part %d of the time has %d of 10,000", tenth, n)
		}
	}
	if got := (Identity{}).expireAt(now); got != 0 {
		t.Errorf("without an end: %d", got)
	}
	if got := (Identity{Expires: now.Add(-time.Hour)}).expireAt(now); got != now.Unix() {
		t.Errorf("after the end: %d", got)
	}
}

// No two users are one to the gateway.
func TestIDs(t *testing.T) {
	t.Parallel()
	seen := make(map[string]Identity)
	for _, who := range []Identity{{User: "bob"}, {Tenant: "acme", User: "bob"}, {User: "acme/bob"}, {User: "/bob"}, {User: "/acme/bob"}, {Tenant: "acme", User: "/bob"}} {
		if other, ok := seen[who.id()]; ok {
			t.Errorf("%+v and %+v are both %q", who, other, who.id())
		}
		seen[who.id()] = who
	}
}
