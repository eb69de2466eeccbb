package live

import (
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// labels of a series.
type labels []*dto.LabelPair

func (l labels) get(name string) string {
	for _, pair := range l {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}

// series is one at one moment.
type series struct {
	labels    labels
	value     float64
	histogram *histogram
}

// sample is what an instance said at one moment, by name and labels.
type sample struct {
	at     time.Time
	series map[string]map[string]series
}

func sampleOf(at time.Time, families []*dto.MetricFamily) *sample {
	s := &sample{at: at, series: make(map[string]map[string]series, len(families))}
	for _, f := range families {
		of := make(map[string]series, len(f.GetMetric()))
		for _, m := range f.GetMetric() {
			key := ""
			for _, pair := range m.GetLabel() {
				key += pair.GetName() + "\x00" + pair.GetValue() + "\x00"
			}
			one := series{labels: m.GetLabel()}
			switch {
			case m.Counter != nil:
				one.value = m.GetCounter().GetValue()
			case m.Gauge != nil:
				one.value = m.GetGauge().GetValue()
			case m.Histogram != nil:
				one.histogram = histogramOf(m.GetHistogram())
			case m.Untyped != nil:
				one.value = m.GetUntyped().GetValue()
			}
			if math.IsNaN(one.value) || math.IsInf(one.value, 0) { // nothing can be made of it, and JSON has no word for it
				continue
			}
			of[key] = one
		}
		s.series[f.GetName()] = of
	}
	return s
}

// sameProcess: counters have gone on.
func (s *sample) sameProcess(later *sample) bool {
	const started = "process_start_time_seconds"
	for key, now := range later.series[started] {
		if was, ok := s.series[started][key]; ok && was.value != now.value {
			return false
		}
	}
	return true
}

// window is what instances said at its beginning, and at its end.
type window []pair

type pair struct{ old, now *sample } // old may be nil

// gauges calls f with each series of a name, of all instances.
func (w window) gauges(name string, f func(l labels, value float64)) {
	for _, p := range w {
		for _, s := range p.now.series[name] {
			f(s.labels, s.value)
		}
	}
}

// sum is of all of them.
func (w window) sum(name string) (total float64, found bool) {
	w.gauges(name, func(_ labels, v float64) { total, found = total+v, true })
	return total, found
}

// counted reports whether a histogram has ever counted something.
func (w window) counted(name string) (found bool) {
	for _, p := range w {
		for _, s := range p.now.series[name] {
			found = found || s.histogram != nil && s.histogram.count > 0
		}
	}
	return found
}

// steady are those of which there are rates: what these are a share of is theirs.
func (w window) steady() (some window) {
	for _, p := range w {
		if p.old != nil {
			some = append(some, p)
		}
	}
	return some
}

// rates calls f with how much a second each counter has grown.
func (w window) rates(name string, f func(l labels, perSecond float64)) {
	w.pairs(name, func(old, now series, seconds float64) {
		grown := now.value - old.value
		if grown < 0 { // the process has started again
			grown = now.value
		}
		f(now.labels, grown/seconds)
	})
}

// rate is of all that f takes; nil takes all.
func (w window) rate(name string, f func(l labels) bool) (total float64) {
	w.rates(name, func(l labels, v float64) {
		if f == nil || f(l) {
			total += v
		}
	})
	return total
}

// histograms calls f with what each has counted, and in how many seconds.
func (w window) histograms(name string, f func(l labels, h *histogram, seconds float64)) {
	w.pairs(name, func(old, now series, seconds float64) {
		if now.histogram != nil {
			f(now.labels, now.histogram.since(old.histogram), seconds)
		}
	})
}

// merged is of all of them.
func (w window) merged(name string, take func(l labels) bool) (all *histogram) {
	w.histograms(name, func(l labels, h *histogram, _ float64) {
		if take == nil || take(l) {
			all = all.plus(h, 1)
		}
	})
	return all
}

func (w window) pairs(name string, f func(old, now series, seconds float64)) {
	for _, p := range w {
		if p.old == nil {
			continue
		}
		seconds := p.now.at.Sub(p.old.at).Seconds()
		if seconds <= 0 {
			continue
		}
		for key, now := range p.now.series[name] {
			f(p.old.series[name][key], now, seconds)
		}
	}
}
