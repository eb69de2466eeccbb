package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// DefaultWidth is the widest interval that a search prints.
	DefaultWidth = 0.06
	// DefaultKneeStart is a guess.
	DefaultKneeStart = 50
	// DefaultKneeMax is the rate up to which one process on two cores was honest.
	DefaultKneeMax = 5000
	// DefaultMaxProbes is about three times what a quiet machine needs.
	DefaultMaxProbes = 40
	// DefaultSettle is a guess.
	DefaultSettle = time.Second

	// holdArrivals makes a probe long enough to tell rates 3 % either side of the knee
	// apart, for the default width. There, a queue takes about 1/(1-ρ)², 1100 services,
	// to reach its level, and an overload grows by 3 % of the arrivals, 180, where chance
	// makes 35. It goes with the inverse square of the width.
	holdArrivals     = 6000
	minHold, maxHold = 5 * time.Second, 2 * time.Minute

	// growth is the ratio of the coarse steps; they last a quarter of the fine ones.
	growth = 1.5
	coarse = 4

	// tolerance is the part of the width by which, as a share of the arrivals, the
	// backlog may grow in a probe that counts as sustained: half of what it grows by at
	// the upper end. Coarse steps are shorter and see more chance.
	tolerance       = 0.25
	coarseTolerance = 0.04

	// warmShare is the part of a probe that is not measured, in which queues fill.
	warmShare = 0.25

	// agreed is by how many probes one verdict on a rate must outweigh the other; the
	// third of three decides in any case.
	agreed = 2
)

// KneeConfig describes a search.
type KneeConfig struct {
	// Config is that of a run without Steps. With an SLO, a rate that misses it is not
	// sustained. Poisson arrivals are pinned to their count.
	Config

	// Start is the first rate. It needs no care: the search goes down as well.
	Start float64
	// Max is the highest rate to try; a server that sustains it has no knee here.
	Max float64
	// Width is the widest interval to end with, as a share of its lower end; from 0.02.
	// Half of it costs four times the time, since chance falls with the root of that.
	Width float64
	// Hold is the measured part of a probe. Default: as long as 6000 arrivals take
	// (at the default width), within 5 s and 2 min. It must be long against a journey: one that thinks for a
	// minute looks like a backlog for its first minute.
	Hold time.Duration
	// Settle is the pause after each probe, beside its drain, in which the server
	// forgets it.
	Settle time.Duration
	// Retries is how often a void probe is tried again before the search gives up.
	// Default 1; negative: never.
	Retries int
	// MaxProbes bounds the search.
	MaxProbes int
	// OnProbe is called after each probe, with its report.
	OnProbe func(Probe, *Report)
}

// Verdict is what a probe says of its rate.
type Verdict string

// The verdicts. A void probe says nothing of the server.
const (
	Sustained    Verdict = "sustained"
	NotSustained Verdict = "not sustained"
	VoidProbe    Verdict = "void"
)

// Probe is one step of a search.
type Probe struct {
	Rate    float64       `json:"rate"`
	Hold    time.Duration `json:"hold_ns"`
	Coarse  bool          `json:"coarse,omitempty"` // short, to find the region
	Verdict Verdict       `json:"verdict"`
	Reasons []string      `json:"reasons,omitempty"`

	Planned      int64         `json:"planned"`
	Ended        int64         `json:"ended"`         // well, while it held
	Throughput   float64       `json:"throughput"`    // Ended per second
	BacklogSlope float64       `json:"backlog_slope"` // per second
	P99          time.Duration `json:"p99_ns"`        // of the response
	// Saturated says that the backlog grew: Throughput is then the server's capacity.
	Saturated bool `json:"saturated,omitempty"`
}

// Knee is the interval that holds the highest rate that the server sustains.
type Knee struct {
	Low    float64 `json:"low"`  // the highest rate that was sustained, in most of its probes
	High   float64 `json:"high"` // the lowest that was not
	Probes []Probe `json:"probes"`
}

// Width is the interval's, as a share of its lower end.
func (k *Knee) Width() float64 { return k.High/k.Low - 1 }

// WriteText writes every probe and the interval for people.
func (k *Knee) WriteText(w io.Writer) error {
	var b strings.Builder
	out := table(&b)
	fmt.Fprintln(out, "offered/s\tfor\tplanned\tdone\tdone/s\tslope/s\tp99\tverdict\t")
	for _, p := range k.Probes {
		fmt.Fprintf(out, "%.1f\t%s\t%d\t%d\t%.1f\t%+.2f\t%s\t%s\t\n", p.Rate, p.Hold.Round(time.Second/10),
			p.Planned, p.Ended, p.Throughput, p.BacklogSlope, short(p.P99), p.Verdict)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if k.Low > 0 && k.High > 0 {
		fmt.Fprintf(&b, "the knee lies between %.1f/s and %.1f/s (%.1f %% wide)\n", k.Low, k.High, 100*k.Width())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var (
	// ErrVoid is the end of a search whose generator could not keep up, with a probe and its retries.
	ErrVoid = errors.New("load: the generator could not keep up, so there is no figure")
	// ErrNoKnee is the end of a search that found none.
	ErrNoKnee = errors.New("load: no knee")
)

func (c KneeConfig) withDefaults() KneeConfig {
	c.Start = cmp.Or(c.Start, DefaultKneeStart)
	c.Max = cmp.Or(c.Max, max(DefaultKneeMax, c.Start))
	c.Width = cmp.Or(c.Width, DefaultWidth)
	c.Settle = cmp.Or(c.Settle, DefaultSettle)
	c.Retries = cmp.Or(c.Retries, 1)
	c.MaxProbes = cmp.Or(c.MaxProbes, DefaultMaxProbes)
	if c.Arrivals == Poisson {
		c.Arrivals = PoissonPinned
	}
	return c
}

// Validate reports everything that is wrong, joined.
func (c KneeConfig) Validate() error {
	errs := c.validateLimits()
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("load: "+format, args...)) }
	if len(c.Steps) > 0 {
		wrong("a search makes its own steps")
	}
	c = c.withDefaults()
	if !(c.Start > 0 && c.Start <= maxRate) {
		wrong("Start %v is not within 0 and %.0g/s", c.Start, float64(maxRate))
	}
	if !(c.Max >= c.Start && c.Max <= maxRate) {
		wrong("Max %v is not within Start and %.0g/s", c.Max, float64(maxRate))
	}
	if !(c.Width >= 0.02 && c.Width <= 0.5) {
		wrong("Width %v is not within 0.02 and 0.5", c.Width)
	}
	if c.Hold < 0 || c.Settle < 0 || c.MaxProbes < 0 {
		wrong("Hold, Settle and MaxProbes must not be negative")
	}
	if c.Hold.Seconds()*c.Max > maxArrivals/2 {
		wrong("Hold %v at Max makes more than %d arrivals", c.Hold, maxArrivals/2)
	}
	return errors.Join(errs...)
}

// FindKnee raises the rate until the server does not sustain it, and then narrows the
// interval between the highest rate sustained and the lowest that was not, until it is
// at most Width wide and each end has been confirmed by a second probe.
//
// A rate is sustained when journeys end as fast as they arrive: of the arrivals of the
// probe, whose number is known, all but 1.5 % (a quarter of the width) were made up for by good ends within it,
// the backlog's slope is below the same share of the rate, and the SLO, if given, is
// met. Probes at the ends are 2.8 % from the capacity seen in overload: nearer, chance
// decides, so the interval's middle is the best guess of the knee.
//
// It returns [ErrVoid], [ErrNoKnee] or the cause of ctx's end, each with the probes so
// far, and never an interval beside an error.
func FindKnee(ctx context.Context, cfg KneeConfig) (*Knee, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	e := newEngine(cfg.Config.withDefaults())
	defer e.close()
	if err := warm(ctx, e.cfg, e.http); err != nil {
		return nil, err
	}
	s := &search{cfg: cfg, engine: e}
	low, high, err := s.find(ctx)
	knee := &Knee{Low: low, High: high, Probes: s.probes}
	if err != nil {
		knee.Low, knee.High = 0, 0
	}
	return knee, err
}

type search struct {
	cfg    KneeConfig
	engine *engine
	probes []Probe

	coarseLow, coarseHigh float64 // of the coarse steps; 0: none
	capacity              float64 // the most that was seen in an overload; 0: none
	rates                 []tally // of the fine probes
}

// tally counts the verdicts on one rate.
type tally struct {
	rate           float64
	good, bad      int
	planned, ended int64 // of all its probes
}

func (t tally) settled() bool {
	return max(t.good-t.bad, t.bad-t.good) >= agreed || t.good+t.bad > agreed
}

// verdict is that of most probes of a rate, and empty where they contradict each other.
//
// A rate just above the capacity may stay within the tolerance in each of them. It is
// not sustained when it exceeds what the server was seen to do in an overload, and
// its probes together fall short by a third of the tolerance. The second condition is
// for servers that do less in an overload than at their best.
func (s *search) verdict(t tally) Verdict {
	short := float64(t.planned - t.ended)
	switch {
	case t.bad > t.good:
		return NotSustained
	case s.capacity > 0 && t.rate > s.capacity && short > tolerance*s.cfg.Width/3*float64(t.planned):
		return NotSustained
	case t.good > t.bad:
		return Sustained
	}
	return ""
}

func (s *search) find(ctx context.Context) (low, high float64, err error) {
	if err := s.approach(ctx); err != nil {
		return 0, 0, err
	}
	for {
		rate := s.open()
		if rate == 0 {
			low, high := s.bracket()
			return low.rate, high.rate, nil
		}
		if rate > s.cfg.Max {
			return 0, 0, fmt.Errorf("%w: %.4g/s is sustained, and Max is %.4g/s", ErrNoKnee, s.highest(), s.cfg.Max)
		}
		if err := s.fine(ctx, rate); err != nil {
			return 0, 0, err
		}
	}
}

// approach finds the region of the knee by short steps.
func (s *search) approach(ctx context.Context) error {
	for rate := s.cfg.Start; s.coarseLow == 0 || s.coarseHigh == 0; {
		p, err := s.probe(ctx, rate, true)
		if err != nil {
			return err
		}
		if p.Verdict == Sustained {
			if rate >= s.cfg.Max {
				return fmt.Errorf("%w: Max, %.4g/s, is sustained", ErrNoKnee, s.cfg.Max)
			}
			s.coarseLow = rate
			rate = min(rate*growth, s.cfg.Max)
			continue
		}
		s.coarseHigh = rate
		if p.Saturated {
			s.capacity = p.Throughput
			return nil // and with it the region
		}
		rate /= growth
		if rate*maxHold.Seconds() < 100 {
			return fmt.Errorf("%w: not even %.3g/s is sustained", ErrNoKnee, p.Rate)
		}
	}
	return nil
}

// bracket gives the lowest rate that is not sustained, and the highest below it that
// is, each by the majority of its probes; a rate of 0 where there is none.
func (s *search) bracket() (low, high tally) {
	for _, t := range s.rates { // ascending
		switch s.verdict(t) {
		case NotSustained:
			return low, t
		case Sustained:
			low = t
		}
	}
	return low, high
}

// open is the rate to try next, 0 when the search is done.
func (s *search) open() float64 {
	for _, t := range s.rates {
		if s.verdict(t) == "" {
			return t.rate
		}
	}
	low, high := s.bracket()
	switch {
	case low.rate == 0 || high.rate == 0 || high.rate/low.rate-1 > s.cfg.Width:
		return s.propose(low.rate, high.rate)
	case !low.settled():
		return low.rate
	case !high.settled():
		return high.rate
	}
	return 0
}

// propose narrows the interval. Ends stay half a width off the capacity.
func (s *search) propose(low, high float64) float64 {
	half := 0.465 * s.cfg.Width // a little less, so that both together stay below it
	below, above := s.capacity*(1-half), s.capacity*(1+half)
	inside := func(rate float64) bool {
		return rate > low*(1+half/2) && (high == 0 || rate < high*(1-half/2)) && rate > 0
	}
	switch {
	case inside(below):
		return below
	case inside(above):
		return above
	case low == 0 && high == 0: // limited by the SLO, not by capacity
		return math.Sqrt(s.coarseLow * s.coarseHigh)
	case high == 0 && s.capacity == 0 && s.coarseHigh > low*(1+2*half):
		return math.Sqrt(low * s.coarseHigh)
	case high == 0:
		return low * (1 + 2*half)
	case low == 0 && s.capacity == 0 && s.coarseLow < high*(1-2*half):
		return math.Sqrt(s.coarseLow * high)
	case low == 0:
		return high * (1 - 2*half)
	}
	return math.Sqrt(low * high)
}

// highest is the highest rate that most of its probes have sustained.
func (s *search) highest() float64 {
	for _, t := range slices.Backward(s.rates) {
		if s.verdict(t) == Sustained {
			return t.rate
		}
	}
	return s.coarseLow
}

func (s *search) fine(ctx context.Context, rate float64) error {
	p, err := s.probe(ctx, rate, false)
	if err != nil {
		return err
	}
	i, found := slices.BinarySearchFunc(s.rates, rate, func(t tally, r float64) int { return cmp.Compare(t.rate, r) })
	if !found {
		s.rates = slices.Insert(s.rates, i, tally{rate: rate})
	}
	s.rates[i].planned += p.Planned
	s.rates[i].ended += p.Ended
	if p.Verdict == Sustained {
		s.rates[i].good++
	} else {
		s.rates[i].bad++
	}
	if p.Saturated {
		// The most that was seen: a stall lowers what a probe sees, and nothing raises it.
		s.capacity = max(s.capacity, p.Throughput)
	}
	return nil
}

// probe measures one rate, again where that was void.
func (s *search) probe(ctx context.Context, rate float64, short bool) (Probe, error) {
	for void := 0; ; void++ {
		if len(s.probes) >= s.cfg.MaxProbes {
			return Probe{}, fmt.Errorf("%w: not settled after %d probes", ErrNoKnee, len(s.probes))
		}
		p, report, err := s.measure(ctx, rate, short)
		if err != nil {
			return Probe{}, err
		}
		s.probes = append(s.probes, p)
		if s.cfg.OnProbe != nil {
			s.cfg.OnProbe(p, report)
		}
		if !timerWait(ctx, time.Now().Add(s.cfg.Settle)) {
			return Probe{}, context.Cause(ctx)
		}
		if p.Verdict != VoidProbe {
			return p, nil
		}
		if void >= s.cfg.Retries {
			return Probe{}, fmt.Errorf("%w: at %.4g/s: %s", ErrVoid, rate, strings.Join(p.Reasons, "; "))
		}
	}
}

func (s *search) measure(ctx context.Context, rate float64, short bool) (Probe, *Report, error) {
	hold := s.cfg.Hold
	if hold == 0 {
		arrivals := holdArrivals * math.Pow(DefaultWidth/s.cfg.Width, 2)
		hold = min(max(time.Duration(arrivals/rate*float64(time.Second)), minHold), maxHold)
	}
	allowed := tolerance * s.cfg.Width
	if short {
		hold, allowed = hold/coarse, max(allowed, coarseTolerance)
	}
	warmup := time.Duration(warmShare * float64(hold))
	cfg := s.cfg.Config
	cfg.Steps = []Step{{Rate: rate, Duration: hold + warmup, Warmup: warmup}}
	cfg.Seed += uint64(len(s.probes)) // or a second probe would meet the first one's luck
	schedule, err := cfg.Schedule()
	if err != nil {
		return Probe{}, nil, err
	}
	report := s.engine.run(ctx, cfg.withDefaults(), schedule)
	if ctx.Err() != nil {
		return Probe{}, nil, context.Cause(ctx)
	}
	p := judgeProbe(report, allowed)
	p.Rate, p.Hold, p.Coarse = rate, hold, short
	return p, report, nil
}

// judgeProbe decides on one probe.
func judgeProbe(report *Report, allowed float64) Probe {
	step := &report.Steps[0]
	all := step.All()
	p := Probe{
		Verdict: Sustained, Planned: step.Planned, Ended: step.Ended, Throughput: step.Throughput(),
		BacklogSlope: step.BacklogSlope, P99: all.Response.Quantile(0.99),
	}
	if report.Outcome == Void {
		p.Verdict, p.Reasons = VoidProbe, append(slices.Clone(report.Void), step.Void...)
		return p
	}
	if short := step.Planned - step.Ended; float64(short) > allowed*float64(step.Planned) {
		p.Reasons = append(p.Reasons, fmt.Sprintf("%d of %d arrivals were not made up for (%.1f %%)",
			short, step.Planned, 100*float64(short)/float64(step.Planned)))
	}
	if limit := allowed * perSecond(step.Planned, step.Measured); step.BacklogSlope > limit {
		p.Saturated = true
		p.Reasons = append(p.Reasons, fmt.Sprintf("the backlog grew by %.1f/s", step.BacklogSlope))
	}
	p.Reasons = append(p.Reasons, step.Misses...)
	if len(p.Reasons) > 0 {
		p.Verdict = NotSustained
	}
	return p
}
