package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// Who comes after a load has ended has another: its error, or what he has invalidated since, is not for him. One that goes
// on, and whose readers were given an older value meanwhile, is joined for as long as nothing speaks against that.
func TestJoin(t *testing.T) {
	t.Parallel()
	v := newLocalView(1, 1, meta{n: 1})
	for name, test := range map[string]struct {
		r      result[int]
		heard  bool
		joined bool
	}{
		"goes on":                          {joined: true},
		"has failed":                       {r: result[int]{err: errors.New("no")}},
		"has ended":                        {r: result[int]{entry: &entry[int]{asOf: 1}}},
		"older value":                      {r: result[int]{entry: &entry[int]{asOf: 1, stripe: 7}, early: true}, joined: true},
		"older value that was invalidated": {r: result[int]{entry: &entry[int]{asOf: 1, stripe: 8}, early: true}, heard: true},
	} {
		var fs flights[string, int]
		first, lead := fs.join("k", v, 7, needs{})
		if !lead {
			t.Fatalf("%s: nobody was there", name)
		}
		if test.r.err != nil || test.r.entry != nil {
			if !first.finish(test.r) || first.finish(test.r) {
				t.Errorf("%s: it does not say which result was the first", name)
			}
		}
		if test.heard {
			v.keys.heard(8, 2)
		}
		if second, lead := fs.join("k", v, 7, needs{}); lead == test.joined || (second == first) != test.joined {
			t.Errorf("%s: joined %v, want %v", name, !lead, test.joined)
		}
	}
}

// What is answered after another connection was made may be another server's.
func TestAnswersOfAnotherConnection(t *testing.T) {
	t.Parallel()
	r := newRedis(rueidis.ClientOption{}, "", time.Second)
	if err := r.exchange(t.Context(), 0, func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
	err := r.exchange(t.Context(), 0, func(context.Context) error { r.dials.Add(1); return nil })
	if !errors.Is(err, errClosed) {
		t.Errorf("an answer counts that came while it was connected anew: %v", err)
	}
	if err := r.exchange(t.Context(), 0, func(context.Context) error { t.Error("another server is asked"); return nil }); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	// A reader who goes says nothing of Redis, nor does what is much.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	fails := func(context.Context) error { return errors.New("no answer") }
	_, _ = r.exchange(gone, 1, fails), r.bulk(t.Context(), 1, fails)
	if n := r.missed.Load(); n != 0 {
		t.Errorf("%d are counted", n)
	}
	if err := r.exchange(t.Context(), 1, fails); !errors.Is(err, errAway) || r.missed.Load() != 1 {
		t.Errorf("%v, %d are counted", err, r.missed.Load())
	}
}
