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
		"then above it":                 {[]tally{{97.21, 1, 0}}, 102.79},
		"the lower end again":           {[]tally{{97.21, 1, 0}, {102.79, 0, 1}}, 97.21},
		"the upper end again":           {[]tally{{97.21, 2, 0}, {102.79, 0, 1}}, 102.79},
		"a third time where they split": {[]tally{{97.21, 1, 1}, {102.79, 0, 2}}, 97.21},
		"done":                          {[]tally{{97.21, 2, 1}, {102.79, 0, 2}}, 0},
		"down when that is too much":    {[]tally{{97.21, 0, 2}}, 91.79},
		"up when that is too little":    {[]tally{{97.21, 2, 0}, {102.79, 2, 0}}, 108.53},
		"a bad rate below a good one":   {[]tally{{91, 1, 0}, {97.21, 0, 1}, {102.79, 1, 0}}, 94.05},
	} {
		s := &search{cfg: KneeConfig{}.withDefaults(), capacity: 100, coarseLow: 80, coarseHigh: 120, rates: c.rates}
		if got := s.open(); got < c.want-0.01 || got > c.want+0.01 {
			t.Errorf("%s: %.2f, want %.2f", name, got, c.want)
		}
	}
}
