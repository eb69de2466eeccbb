package causal_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/loadlinehq/loadline/causal"
)

func TestAdd(t *testing.T) {
	t.Parallel()
	base := causal.Mark{System: 1, Timeline: 2, LSN: 100, Epoch: 7, Number: 10}
	with := func(change func(*causal.Mark)) causal.Mark {
		m := base
		change(&m)
		return m
	}
	for _, tc := range []struct {
		name  string
		marks []causal.Mark
		want  []causal.Mark
	}{
		{"nothing", nil, nil},
		{"no position names no log", []causal.Mark{with(func(m *causal.Mark) { m.LSN = 0 })}, nil},
		{"the same twice", []causal.Mark{base, base}, []causal.Mark{base}},
		{
			"an epoch without a number",
			[]causal.Mark{with(func(m *causal.Mark) { m.Number = 0 })},
			[]causal.Mark{with(func(m *causal.Mark) { m.Epoch, m.Number = 0, 0 })},
		},
		{
			"the later position and number",
			[]causal.Mark{base, with(func(m *causal.Mark) { m.LSN, m.Number = 200, 9 })},
			[]causal.Mark{with(func(m *causal.Mark) { m.LSN = 200 })},
		},
		{
			"numbers of two epochs",
			[]causal.Mark{base, with(func(m *causal.Mark) { m.LSN, m.Epoch, m.Number = 90, 8, 11 })},
			[]causal.Mark{with(func(m *causal.Mark) { m.Epoch, m.Number = 0, 0 })},
		},
		{
			"a write of which the caches were not told",
			[]causal.Mark{base, with(func(m *causal.Mark) { m.LSN, m.Epoch, m.Number = 90, 0, 0 })},
			[]causal.Mark{with(func(m *causal.Mark) { m.Epoch, m.Number = 0, 0 })},
		},
		{
			"clusters in order, the newest timeline first",
			[]causal.Mark{{System: 2, Timeline: 1, LSN: 1}, {System: 1, Timeline: 1, LSN: 3}, {System: 1, Timeline: 2, LSN: 2}},
			[]causal.Mark{{System: 1, Timeline: 2, LSN: 2}, {System: 1, Timeline: 1, LSN: 3}, {System: 2, Timeline: 1, LSN: 1}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			token := causal.NewToken(tc.marks...)
			if diff := cmp.Diff(tc.want, slices.Collect(token.Marks())); diff != "" {
				t.Errorf("marks (-want +got):\n%s", diff)
			}
			if token.Incomplete() || token.IsZero() != (len(tc.want) == 0) {
				t.Errorf("incomplete %v, zero %v", token.Incomplete(), token.IsZero())
			}
		})
	}
}

func TestMark(t *testing.T) {
	t.Parallel()
	newest := causal.Mark{System: 1, Timeline: 2, LSN: 2}
	token := causal.NewToken(causal.Mark{System: 1, Timeline: 1, LSN: 3}, newest)
	if m, ok := token.Mark(1); !ok || m != newest {
		t.Errorf("got %v, %v; want the mark of the newest timeline", m, ok)
	}
	if m, ok := token.Mark(2); ok {
		t.Errorf("a mark of a cluster that was not seen: %v", m)
	}
	if without := token.Without(newest); !without.Equal(causal.NewToken(causal.Mark{System: 1, Timeline: 1, LSN: 3})) {
		t.Errorf("without the newest: %v", slices.Collect(without.Marks()))
	}
	if _, ok := token.Mark(1); !ok {
		t.Error("Without has changed the token that it was called on")
	}
}

func TestBounded(t *testing.T) {
	t.Parallel()
	var full causal.Token
	for system := range uint64(causal.MaxMarks) {
		full = full.Add(causal.Mark{System: system + 1, Timeline: 2, LSN: 1})
	}
	if full.Incomplete() {
		t.Fatal("incomplete, although all marks have room")
	}
	ended := full.Add(causal.Mark{System: 3, Timeline: 1, LSN: 1})
	if !ended.Equal(full.Merge(causal.Unknown())) {
		t.Error("an ended timeline was not the one to go")
	}
	more := full.Add(causal.Mark{System: 100, Timeline: 1, LSN: 1})
	if n := len(slices.Collect(more.Marks())); n != causal.MaxMarks || !more.Incomplete() {
		t.Errorf("%d marks, incomplete %v", n, more.Incomplete())
	}
}

// drawMark draws from few logs, so that marks meet, and also drawn are the largest
// numbers.
func drawMark(t *rapid.T, systems int) causal.Mark {
	number := rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Just(^uint64(0)))
	return causal.Mark{
		System:   uint64(rapid.IntRange(1, systems).Draw(t, "system")),
		Timeline: uint32(rapid.IntRange(1, 2).Draw(t, "timeline")),
		LSN:      causal.LSN(number.Draw(t, "lsn")),
		Epoch:    number.Draw(t, "epoch"),
		Number:   number.Draw(t, "number"),
	}
}

func drawToken(systems int) *rapid.Generator[causal.Token] {
	return rapid.Custom(func(t *rapid.T) causal.Token {
		var token causal.Token
		for range rapid.IntRange(0, 2*systems).Draw(t, "marks") {
			token = token.Add(drawMark(t, systems))
		}
		if rapid.Bool().Draw(t, "incomplete") {
			token = token.Merge(causal.Unknown())
		}
		return token
	})
}

// Four clusters of two timelines each have just room.
func TestMergeIsAJoin(t *testing.T) {
	t.Parallel()
	tokens := drawToken(causal.MaxMarks / 2)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := tokens.Draw(t, "a"), tokens.Draw(t, "b"), tokens.Draw(t, "c")
		if !a.Merge(b).Equal(b.Merge(a)) {
			t.Error("not commutative")
		}
		if !a.Merge(b).Merge(c).Equal(a.Merge(b.Merge(c))) {
			t.Error("not associative")
		}
		if !a.Merge(a).Equal(a) || !a.Merge(b).Merge(b).Equal(a.Merge(b)) {
			t.Error("not idempotent")
		}
		if !a.Merge(causal.Token{}).Equal(a) || !(causal.Token{}).Merge(a).Equal(a) {
			t.Error("nothing changes something")
		}
		if a.Merge(b).Incomplete() != (a.Incomplete() || b.Incomplete()) {
			t.Error("incomplete without a reason, or complete without one")
		}
	})
}

func TestAddIsMerge(t *testing.T) {
	t.Parallel()
	tokens := drawToken(causal.MaxMarks)
	rapid.Check(t, func(t *rapid.T) {
		token, m := tokens.Draw(t, "token"), drawMark(t, causal.MaxMarks)
		if added := token.Add(m); !added.Equal(token.Merge(causal.NewToken(m))) || !added.Equal(added.Add(m)) {
			t.Error("adding a mark is not merging its token")
		}
	})
}

// A mark that is there no more, or promises more than was seen, would let its holder
// read the past.
func TestMergeLosesNothing(t *testing.T) {
	t.Parallel()
	tokens := drawToken(causal.MaxMarks)
	rapid.Check(t, func(t *rapid.T) {
		a, b := tokens.Draw(t, "a"), tokens.Draw(t, "b")
		merged := a.Merge(b)
		marks := slices.Collect(merged.Marks())
		if len(marks) > causal.MaxMarks {
			t.Errorf("%d marks", len(marks))
		}
		for _, from := range []causal.Token{a, b} {
			for m := range from.Marks() {
				covered := slices.ContainsFunc(marks, func(n causal.Mark) bool {
					return n.System == m.System && n.Timeline == m.Timeline && n.LSN >= m.LSN &&
						(n.Number == 0 || m.Number > 0 && n.Epoch == m.Epoch && n.Number >= m.Number)
				})
				if !covered && !merged.Incomplete() {
					t.Errorf("%+v is lost, and nothing says so", m)
				}
			}
			if from.Incomplete() && !merged.Incomplete() {
				t.Error("incomplete is lost")
			}
		}
	})
}

// Tokens share what they hold; a session's must not change under who has read it.
func TestTokensDoNotChange(t *testing.T) {
	t.Parallel()
	tokens := drawToken(causal.MaxMarks)
	rapid.Check(t, func(t *rapid.T) {
		a, b, m := tokens.Draw(t, "a"), tokens.Draw(t, "b"), drawMark(t, causal.MaxMarks)
		before := a.String()
		a.Add(m)
		a.Merge(b)
		b.Merge(a)
		for mark := range a.Marks() {
			a.Without(mark)
		}
		if a.String() != before {
			t.Error("the token has changed")
		}
	})
}
