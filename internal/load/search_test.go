package load

import "testing"

// What a search tries next.
func TestSearchOrder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rates []tally
		want  float64
	}{
		"below the capacity first":      {nil, 97.21},
		"then above it":                 {[]tally{{rate: 97.21, good: 1, bad: 0}}, 102.79},
		"the lower end again":           {[]tally{{rate: 97.21, good: 1, bad: 0}, {rate: 102.79, good: 0, bad: 1}}, 97.21},
		"the upper end again":           {[]tally{{rate: 97.21, good: 2, bad: 0}, {rate: 102.79, good: 0, bad: 1}}, 102.79},
		"a third time where they split": {[]tally{{rate: 97.21, good: 1, bad: 1}, {rate: 102.79, good: 0, bad: 2}}, 97.21},
		"done":                          {[]tally{{rate: 97.21, good: 2, bad: 1}, {rate: 102.79, good: 0, bad: 2}}, 0},
		"down when that is too much":    {[]tally{{rate: 97.21, good: 0, bad: 2}}, 91.79},
		"tolerated above the capacity":  {[]tally{{rate: 103, good: 2, planned: 10000, ended: 9900}}, 97.21},
		"better than in an overload":    {[]tally{{rate: 103, good: 2, planned: 10000, ended: 9990}}, 108.75},
		"up when that is too little":    {[]tally{{rate: 97.21, good: 2, bad: 0}, {rate: 102.79, good: 2, bad: 0}}, 108.53},
		"a bad rate below a good one":   {[]tally{{rate: 91, good: 1, bad: 0}, {rate: 97.21, good: 0, bad: 1}, {rate: 102.79, good: 1, bad: 0}}, 94.05},
	} {
		s := &search{cfg: KneeConfig{}.withDefaults(), capacity: 100, coarseLow: 80, coarseHigh: 120, rates: c.rates}
		if got := s.open(); got < c.want-0.01 || got > c.want+0.01 {
			t.Errorf("%s: %.2f, want %.2f", name, got, c.want)
		}
	}
}
