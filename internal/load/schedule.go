package load

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"time"
)

// Arrivals is how the arrivals of a step are spaced.
type Arrivals int

const (
	// Poisson is the default: independent users, exponential gaps. Queues form, as
	// they do in production.
	Poisson Arrivals = iota
	// PoissonPinned is a Poisson process given its count: a step holds exactly as
	// many arrivals as its rate says. The finder of the knee uses it, since the
	// sampling error of the rate (1 % over 10,000 arrivals) is as large as what it
	// has to tell apart.
	PoissonPinned
	// Uniform has equal gaps. It hides queueing: ten servers at 95 % look as fast as
	// idle ones, where Poisson arrivals see a five-fold p99. For comparisons with
	// tools that know nothing else.
	Uniform
)

// String is the name in reports.
func (a Arrivals) String() string {
	switch a {
	case Poisson:
		return "poisson"
	case PoissonPinned:
		return "poisson, pinned count"
	case Uniform:
		return "uniform"
	}
	return fmt.Sprintf("Arrivals(%d)", int(a))
}

// Step is a part of a run at one rate, or with one slope.
type Step struct {
	// Name is for reports; empty means the rate.
	Name string
	// Rate is in arrivals (journeys, not requests) per second. Zero is a pause.
	Rate float64
	// EndRate, if not zero, makes the step a ramp from Rate to EndRate.
	EndRate float64
	// Duration includes Warmup.
	Duration time.Duration
	// Warmup is the first part of Duration. Its arrivals are sent, and not counted:
	// caches fill, queues reach their level. Too short, and the step's figures
	// contain the one before.
	Warmup time.Duration
}

func (s Step) title() string {
	switch {
	case s.Name != "":
		return s.Name
	case s.EndRate != 0:
		return fmt.Sprintf("%.4g/s to %.4g/s", s.Rate, s.EndRate)
	}
	return fmt.Sprintf("%.4g/s", s.Rate)
}

// slope is the change of the rate per second.
func (s Step) slope() float64 {
	if s.EndRate == 0 || s.Duration <= 0 {
		return 0
	}
	return (s.EndRate - s.Rate) / s.Duration.Seconds()
}

// expected is the mean number of arrivals in the step's first t.
func (s Step) expected(t time.Duration) float64 {
	x := t.Seconds()
	return s.Rate*x + s.slope()*x*x/2
}

// when is the inverse of expected, in the form that neither cancels nor divides by a
// slope of zero.
func (s Step) when(count float64) time.Duration {
	root := math.Sqrt(max(0, s.Rate*s.Rate+2*s.slope()*count))
	return time.Duration(2 * count / (s.Rate + root) * float64(time.Second))
}

func (s Step) validate() error {
	var errs []error
	for _, rate := range []float64{s.Rate, s.EndRate} {
		if !(rate >= 0 && rate <= maxRate) { // also NaN
			errs = append(errs, fmt.Errorf("rate %v is not within 0 and %.0g/s", rate, float64(maxRate)))
		}
	}
	if s.Duration <= 0 {
		errs = append(errs, fmt.Errorf("duration %v is not positive", s.Duration))
	}
	if s.Warmup < 0 || (s.Duration > 0 && s.Warmup >= s.Duration) {
		errs = append(errs, fmt.Errorf("warm-up %v leaves nothing of %v", s.Warmup, s.Duration))
	}
	return errors.Join(errs...)
}

// Arrival is the intended start of one journey.
type Arrival struct {
	At      time.Duration // after the start of the run
	Step    int
	Journey int  // index in [Config.Journeys]
	User    int  // index in the population, or the arrival's own number without one
	Warmup  bool // sent, and not counted
}

// Schedule is every arrival of a run, fixed before it starts, so that nothing that
// happens in the run can delay or omit one: that is what makes the loop open.
type Schedule struct {
	steps    []Step
	starts   []time.Duration // of the steps, and the end of the last
	arrivals []arrival
}

// arrival is [Arrival] in 16 bytes, of which a run may hold millions.
type arrival struct {
	at      time.Duration
	user    int32
	step    uint16
	journey uint16
}

// Len is the number of arrivals.
func (s *Schedule) Len() int { return len(s.arrivals) }

// Duration is the length of all steps together.
func (s *Schedule) Duration() time.Duration { return s.starts[len(s.steps)] }

// All yields the arrivals in order.
func (s *Schedule) All() iter.Seq[Arrival] {
	return func(yield func(Arrival) bool) {
		for _, a := range s.arrivals {
			out := Arrival{At: a.at, Step: int(a.step), Journey: int(a.journey), User: int(a.user), Warmup: s.warm(a)}
			if !yield(out) {
				return
			}
		}
	}
}

func (s *Schedule) warm(a arrival) bool { return a.at < s.measuredFrom(int(a.step)) }

func (s *Schedule) measuredFrom(step int) time.Duration { return s.starts[step] + s.steps[step].Warmup }

// Schedule computes the arrivals. It depends on Steps, Arrivals, Seed, the weights of
// Journeys and Users alone: the same of these give the same arrivals, so that two
// runs, before and after a change, meet the same users at the same times. Times,
// journeys and users come from separate streams: another mix leaves the times as
// they are.
func (c Config) Schedule() (*Schedule, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	s := &Schedule{steps: c.Steps, starts: make([]time.Duration, len(c.Steps)+1)}
	times := rand.New(rand.NewPCG(c.Seed, streamTimes))
	for i, step := range c.Steps {
		s.starts[i+1] = s.starts[i] + step.Duration
		// In two parts, so that a pinned count holds for what is measured; for the
		// others the cut changes nothing.
		for _, at := range spread(step, 0, step.Warmup, c.Arrivals, times) {
			s.arrivals = append(s.arrivals, arrival{at: s.starts[i] + at, step: uint16(i)})
		}
		for _, at := range spread(step, step.Warmup, step.Duration, c.Arrivals, times) {
			s.arrivals = append(s.arrivals, arrival{at: s.starts[i] + at, step: uint16(i)})
		}
	}
	pick, users := rand.New(rand.NewPCG(c.Seed, streamMix)), rand.New(rand.NewPCG(c.Seed, streamUsers))
	choose := chooser(c.Journeys)
	for i := range s.arrivals {
		s.arrivals[i].journey = uint16(choose(pick.Float64()))
		s.arrivals[i].user = int32(i)
		if c.Users > 0 {
			s.arrivals[i].user = users.Int32N(int32(c.Users))
		}
	}
	return s, nil
}

// The streams of random numbers that a seed stands for.
const (
	streamTimes = iota + 1
	streamMix
	streamUsers
	streamJourney // one for each arrival from here on
)

// spread gives the arrivals of a step between two of its times. A process whose rate
// varies is one of rate 1 on the axis of its expected count (Lewis and Shedler,
// "Simulation of nonhomogeneous Poisson processes by thinning", 1979, section 1).
func spread(step Step, from, to time.Duration, kind Arrivals, random *rand.Rand) []time.Duration {
	begin, end := step.expected(from), step.expected(to)
	count := end - begin
	if count <= 0 {
		return nil
	}
	at := make([]time.Duration, 0, int(count+4*math.Sqrt(count))+1)
	add := func(x float64) { at = append(at, min(max(step.when(begin+x), from), to-1)) }
	switch kind {
	case Uniform:
		for x := 0.5; x < count; x++ {
			add(x)
		}
	case PoissonPinned:
		// The arrivals of a Poisson process given their number are as many sorted
		// uniform values, which are normalised sums of exponential ones.
		n := int(math.Round(count))
		sums, sum := make([]float64, n), 0.0
		for i := range sums {
			sum += random.ExpFloat64()
			sums[i] = sum
		}
		sum += random.ExpFloat64()
		for _, s := range sums {
			add(s / sum * count)
		}
	default:
		for x := random.ExpFloat64(); x < count; x += random.ExpFloat64() {
			add(x)
		}
	}
	return at
}

// chooser maps a value in [0, 1) to a journey by weight.
func chooser(journeys []Weighted) func(float64) int {
	total := 0.0
	bounds := make([]float64, len(journeys))
	for i, j := range journeys {
		total += j.Weight
		bounds[i] = total
	}
	return func(x float64) int {
		for i, bound := range bounds {
			if x*total < bound {
				return i
			}
		}
		return len(bounds) - 1
	}
}
