package load

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", r.Outcome)
	if r.Target != "" {
		fmt.Fprintf(&b, "  %s", r.Target)
	}
	fmt.Fprintf(&b, "  %s arrivals, seed %d, %v with the drain\n", r.Arrivals, r.Seed, r.Elapsed.Round(time.Millisecond))
	for _, reason := range r.Void {
		fmt.Fprintf(&b, "void: %s\n", reason)
	}
	for i := range r.Steps {
		s := &r.Steps[i]
		for _, reason := range s.Void {
			fmt.Fprintf(&b, "void: %s: %s\n", s.Title, reason)
		}
		for _, miss := range s.Misses {
			fmt.Fprintf(&b, "missed: %s: %s\n", s.Title, miss)
		}
	}
	b.WriteString("\n")
	r.writeSteps(&b)
	b.WriteString("\n")
	r.writeRoutes(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func table(b *strings.Builder) *tabwriter.Writer {
	return tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
}

func (r *Report) writeSteps(b *strings.Builder) {
	out := table(b)
	defer out.Flush()
	fmt.Fprintln(out, "step\tplanned\tsent\tsent/s\tdone/s\tfailed\tdropped\tcut off\tbacklog\tslope/s\tlag p99\tcpu\tverdict\t")
	for i := range r.Steps {
		s := &r.Steps[i]
		fmt.Fprintf(out, "%s\t%d\t%d\t%.1f\t%.1f\t%d\t%d\t%d\t%d\t%+.2f\t%s\t%.0f %%\t%s\t\n",
			s.Title, s.Planned, s.Sent, s.SentRate(), s.Throughput(), s.Failed, s.Dropped, s.Unfinished,
			s.BacklogEnd, s.BacklogSlope, short(s.Lag.Quantile(0.99)), 100*s.CPU, s.Outcome)
	}
}

func (r *Report) writeRoutes(b *strings.Builder) {
	out := table(b)
	defer out.Flush()
	fmt.Fprintln(out, "step\troute\t\tcount\terrors\tp50\tp90\tp95\tp99\tp99.9\tmax\t")
	for i := range r.Steps {
		s := &r.Steps[i]
		routes := s.Routes
		if len(routes) > 1 {
			routes = append(slices.Clip(routes), s.All())
		}
		for _, route := range routes {
			for _, line := range []struct {
				name string
				h    Histogram
			}{{"response", route.Response}, {"service", route.Service}, {"queue", route.Queue}} {
				if line.h.Count() == 0 {
					continue
				}
				errors := ""
				if line.name == "response" {
					errors = failures(route)
				}
				fmt.Fprintf(out, "%s\t%s\t%s\t%d\t%s\t", s.Title, route.Route, line.name, line.h.Count(), errors)
				for _, q := range []float64{0.5, 0.9, 0.95, 0.99, 0.999} {
					fmt.Fprintf(out, "%s\t", short(line.h.Quantile(q)))
				}
				fmt.Fprintf(out, "%s\t\n", short(line.h.Max()))
			}
		}
	}
}

func failures(r RouteReport) string {
	if r.Errors == 0 {
		return "0"
	}
	var causes []string
	for _, cause := range slices.Sorted(maps.Keys(r.Failures)) {
		causes = append(causes, fmt.Sprintf("%d %s", r.Failures[cause], cause))
	}
	return strings.Join(causes, ", ")
}

// short keeps three digits or so: the histograms hold no more.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%d µs", d.Microseconds())
}
