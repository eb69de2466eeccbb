package selectors_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/internal/manifests/selectors"
)

func TestOf(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string][]selectors.Series{
		`up`: {{Name: "up"}},
		`sum by (job, le) (rate(a_bucket{job="x",le=~"1|1\\.0"}[5m] offset 1h)) > 1e3`:                           {{"a_bucket", []string{"job", "le"}}},
		`topk by (job) (1, a:b{c!="sum(d)"}) and on (job) max(e) by (job) unless f or vector(0)`:                 {{"a:b", []string{"c"}}, {Name: "e"}, {Name: "f"}},
		`histogram_count(sum(rate(h{s!~"4.."}[2m]))) * (1 - histogram_fraction(0, 0.25, sum(rate(h[2m])))) >= 0`: {{"h", []string{"s"}}, {Name: "h"}},
	} {
		if diff := cmp.Diff(want, selectors.Of(expr)); diff != "" {
			t.Errorf("%s:\n%s", expr, diff)
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	expressions, records := selectors.Rules([]byte("groups:\n  - name: g\n    rules:\n      - record: a:b\n        expr: up\n      - alert: C\n        expr: |\n          one\n            and two\n        for: 1m\n"))
	if diff := cmp.Diff([]string{"up", "one\nand two\n"}, expressions); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a:b"}, records); diff != "" {
		t.Error(diff)
	}
}
