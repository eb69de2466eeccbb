package manifests

import (
	"strconv"
	"strings"
)

// ruled is what the templates of Prometheus' files are filled with.
type ruled struct {
	Config
	promQL

	Cores, Target, LatencySeconds, DrainSeconds string
	Bearable                                    int
	Changes                                     []change
	Windows                                     []string
	Burns                                       []burn
	Alerts                                      []alert
}

// change is a series of which it is recorded by what it has changed.
type change struct{ Of, Series string }

// Prometheus returns the rules, and how the pods are found and asked.
func Prometheus(c Config) ([]File, error) {
	if err := c.Complete(); err != nil {
		return nil, err
	}
	r := c.ruled()
	return []File{rendered("prometheus", "rules.yaml", r), rendered("prometheus", "scrape.yaml", r)}, nil
}

func (c Config) ruled() ruled {
	r := ruled{
		Config: c, promQL: promQL{job: c.Name, native: !c.ClassicHistograms},
		Cores: number(c.CPU), Target: number(float64(c.CPUTarget) / 100), LatencySeconds: seconds(c.Latency), DrainSeconds: seconds(c.QueueDrain),
		Bearable: c.bearable(),
		Changes: []change{
			{"traffic", "loadline:admitted:rate1m"},
			{"cpu of a request", "loadline:cpu_per_request:rate5m"},
			{"database time of a request", "loadline:database_per_request:rate5m"},
			{"instances", "loadline:replicas:now"},
		},
		Windows: []string{"5m", "30m", "1h", "2h", "6h", "1d", "3d"},
	}
	r.Burns = c.burns()
	r.Alerts = r.causes()
	if c.Realtime != "" {
		r.Alerts = append(r.Alerts, r.realtimeCauses()...)
	}
	return r
}

// bearable is for how many instances the connections of a server suffice.
func (c Config) bearable() int {
	p, _ := c.pools() // Complete has seen it
	n := c
	for n.peak()*(max(p.primary, p.replica)+c.OtherConnections) <= c.budget() {
		n.MaxReplicas++
	}
	return n.MaxReplicas - 1
}

// number writes one as PromQL has it.
func number(f float64) string { return strconv.FormatFloat(f, 'g', 6, 64) }

// burn is an alert on a budget, by a long and a short window.
type burn struct {
	Alert, SLO, Summary, Severity string
	Long, Short                   string
	Factor, Over, Percent         string
}

// The windows and factors are those of the SRE workbook, chapter 5: 2 % of a month's
// budget in an hour, 5 % in six, 10 % in a day and in three.
var burnWindows = []struct {
	long, short string
	factor      float64
	severity    string
}{{"1h", "5m", 14.4, severityPage}, {"6h", "30m", 6, severityPage}, {"1d", "2h", 3, severityTicket}, {"3d", "6h", 1, severityTicket}}

func (c Config) burns() []burn {
	var all []burn
	for _, slo := range []struct {
		name, alert, summary string
		budget               float64
	}{
		{"latency", "LoadlineSlow", "requests take longer than " + c.Latency.String() + " too often", 0.05}, // of a p95
		{"availability", "LoadlineFailing", "requests fail too often", 1 - c.Availability},
	} {
		for _, w := range burnWindows {
			if over := w.factor * slo.budget; over < 1 { // otherwise it could never be
				all = append(all, burn{
					Alert: slo.alert + strings.ToUpper(w.long), SLO: slo.name, Summary: slo.summary, Severity: w.severity, Long: w.long, Short: w.short,
					Factor: number(w.factor), Over: number(over), Percent: number(100 * over),
				})
			}
		}
	}
	return all
}
