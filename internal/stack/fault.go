package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

// FaultKind is what can be done to a service. [FaultKinds] describes each.
type FaultKind string

// The kinds of faults.
const (
	// To the process.
	FaultKill    FaultKind = "kill"
	FaultPause   FaultKind = "pause"
	FaultRestart FaultKind = "restart"
	// To the connections of its clients, by its proxy.
	FaultLatency   FaultKind = "latency"
	FaultBandwidth FaultKind = "bandwidth"
	FaultStall     FaultKind = "stall"
	FaultCut       FaultKind = "cut"
	FaultReset     FaultKind = "reset"
	FaultRefuse    FaultKind = "refuse"
	// To PostgreSQL.
	FaultLag         FaultKind = "lag"
	FaultReplayPause FaultKind = "replay-pause"
	FaultStreamCut   FaultKind = "stream-cut"
	FaultPromote     FaultKind = "promote"
	FaultExhaust     FaultKind = "exhaust"
	// To the disk under its data.
	FaultDiskFull FaultKind = "disk-full"
)

// Bounds of faults. They are far beyond what any test needs, and below what would
// take the machine with it.
const (
	maxFaults   = 64
	maxFaultFor = 24 * time.Hour
	maxSessions = 1000
	maxLag      = time.Hour
	// applyLimit bounds the work on one fault: a crash recovery or a base backup.
	applyLimit = 2 * time.Minute
)

// Fault is something to be done to one service. Of the fields after Kind each belongs
// to some kinds alone; see [FaultKinds].
type Fault struct {
	Service string
	Kind    FaultKind

	// Delay and Jitter are latency's, each way; Delay is also lag's.
	Delay, Jitter time.Duration
	// BytesPerSecond is bandwidth's, each way, of all connections together.
	BytesPerSecond int64
	// Direction limits latency, bandwidth and cut to one direction. cut needs it.
	Direction faultproxy.Direction
	// Sessions is how many exhaust holds. Default: all that the server has left for
	// the application's role.
	Sessions int

	// For is when the fault is undone by itself. Default: when it is asked to.
	For time.Duration
}

// FaultPhase is where a fault is in its life.
type FaultPhase string

const (
	FaultAdding   FaultPhase = "adding"
	FaultActive   FaultPhase = "active"
	FaultRemoving FaultPhase = "removing"
	FaultRemoved  FaultPhase = "removed"
)

// ActiveFault is a fault that was added.
type ActiveFault struct {
	ID string
	Fault
	Phase FaultPhase
	Since time.Time
	Until time.Time // zero: until it is removed
	// Undo says in words what removing it does.
	Undo string
	// Problem says why it could not be removed.
	Problem string
	// Was is the name of the primary before a promotion, and Promoting says that
	// PostgreSQL has been asked for it.
	Was       string
	Promoting bool
}

// String describes a fault as it is added: "redis latency --delay 50ms".
func (f Fault) String() string {
	text := f.Service + " " + string(f.Kind)
	add := func(flag string, value any, set bool) {
		if set {
			text += fmt.Sprintf(" --%s %v", flag, value)
		}
	}
	add("delay", f.Delay, f.Delay != 0)
	add("jitter", f.Jitter, f.Jitter != 0)
	add("rate", f.BytesPerSecond, f.BytesPerSecond != 0)
	add("direction", f.Direction, f.Direction != "")
	add("sessions", f.Sessions, f.Sessions != 0)
	add("for", f.For, f.For != 0)
	return text
}

// Validate reports everything that is wrong with the fault itself; whether there is
// such a service is for the stack to say.
func (f Fault) Validate() error {
	k, ok := findKind(f.Kind)
	if !ok {
		names := make([]string, len(kinds))
		for i, k := range kinds {
			names[i] = string(k.FaultKind)
		}
		return fmt.Errorf("%w: there is no kind %q; there is: %s", ErrBadFault, f.Kind, strings.Join(names, ", "))
	}
	var errs []error
	for flag, given := range map[string]bool{
		"delay": f.Delay != 0, "jitter": f.Jitter != 0, "rate": f.BytesPerSecond != 0,
		"direction": f.Direction != "", "sessions": f.Sessions != 0,
	} {
		switch {
		case given && !slices.Contains(k.takes, flag):
			errs = append(errs, fmt.Errorf("%s takes no --%s", f.Kind, flag))
		case !given && slices.Contains(k.needs, flag):
			errs = append(errs, fmt.Errorf("%s needs --%s", f.Kind, flag))
		}
	}
	if proxied, ok := f.proxyFault(); ok && len(errs) == 0 {
		if err := proxied.Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	if f.Kind == FaultLag && (f.Delay < 0 || f.Delay > maxLag) {
		errs = append(errs, fmt.Errorf("--delay %s is not between 0 and %s", f.Delay, maxLag))
	}
	if f.Sessions < 0 || f.Sessions > maxSessions {
		errs = append(errs, fmt.Errorf("--sessions %d is not between 1 and %d", f.Sessions, maxSessions))
	}
	if f.For < 0 || f.For > maxFaultFor {
		errs = append(errs, fmt.Errorf("--for %s is not between 0 and %s", f.For, maxFaultFor))
	}
	if f.For > 0 && f.Kind == FaultRestart {
		errs = append(errs, errors.New("restart is over by itself and takes no --for"))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", ErrBadFault, errors.Join(errs...))
	}
	return nil
}

// proxyFault returns the fault that the service's proxy is given, if it is one.
func (f Fault) proxyFault() (faultproxy.Fault, bool) {
	proxied := faultproxy.Fault{
		Direction: f.Direction, Delay: f.Delay, Jitter: f.Jitter, BytesPerSecond: f.BytesPerSecond,
	}
	switch f.Kind {
	case FaultLatency:
		proxied.Kind = faultproxy.Latency
	case FaultBandwidth:
		proxied.Kind = faultproxy.Bandwidth
	case FaultStall:
		proxied.Kind = faultproxy.Stall
	case FaultCut:
		proxied.Kind = faultproxy.Cut
	case FaultReset:
		proxied.Kind = faultproxy.Reset
	case FaultRefuse:
		proxied.Kind = faultproxy.Refuse
	default:
		return faultproxy.Fault{}, false
	}
	return proxied, true
}

var (
	// ErrBadFault is returned for a fault that makes no sense.
	ErrBadFault = errors.New("bad fault")
	// ErrNoService is returned for a fault on a service that there is not.
	ErrNoService = errors.New("no such service")
	// ErrNoFault is returned by [Stack.RemoveFault] when there is no such fault.
	ErrNoFault = errors.New("no such fault")
	// ErrConflict is returned when what goes on already does not allow it.
	ErrConflict = errors.New("conflict")
	// ErrUnsupported is returned for what this system, or this user, cannot do.
	ErrUnsupported = errors.New("not supported here")
)

// fault is an added fault and what holds it. Its ActiveFault is guarded by the
// stack's mutex.
type fault struct {
	ActiveFault
	removed chan struct{} // closed when it is gone
	let     func()        // ends what keeps it up; nil when nothing has to
}

// AddFault does to a service what the fault says, and returns when that is in force.
// What undoes it is written down before: when this process is killed, the next start,
// or `loadline down`, undoes it. When it fails, or ctx is done first, what was done
// is undone at once.
//
// It returns [ErrBadFault], [ErrNoService], [ErrConflict] or [ErrUnsupported], each
// with the reason.
func (s *Stack) AddFault(ctx context.Context, f Fault) (ActiveFault, error) {
	if err := f.Validate(); err != nil {
		return ActiveFault{}, fmt.Errorf("stack: %w", err)
	}
	ended, err := s.beginWork()
	if err != nil {
		return ActiveFault{}, fmt.Errorf("stack: %w", err)
	}
	defer ended()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	added, c, err := s.registerFault(f)
	if err != nil {
		return ActiveFault{}, fmt.Errorf("stack: %w", err)
	}
	if err := s.mustBeReady(c, added); err != nil { // nothing was done
		s.unregisterFault(added)
		return ActiveFault{}, fmt.Errorf("stack: %s: %w", f, err)
	}
	if err := s.apply(ctx, c, added); err != nil {
		s.setPhase(added, FaultRemoving, nil) // it holds nothing down any more
		undo, cancel := s.bounded(context.WithoutCancel(ctx))
		defer cancel()
		if undoErr := s.undo(undo, c, added); undoErr != nil {
			// It stays, so that it can be tried again.
			s.setPhase(added, FaultActive, undoErr)
			return ActiveFault{}, fmt.Errorf("stack: %s: %w; and to undo it failed: %w", f, err, undoErr)
		}
		s.unregisterFault(added)
		return ActiveFault{}, fmt.Errorf("stack: %s: %w", f, err)
	}
	if f.Kind == FaultRestart {
		s.unregisterFault(added)
		return s.snapshot(added), nil
	}
	s.mu.Lock()
	if f.For > 0 {
		added.Until = time.Now().Add(f.For)
	}
	s.mu.Unlock()
	s.setPhase(added, FaultActive, nil)
	active := s.snapshot(added)
	s.notifyFault(c, active)
	if f.For > 0 {
		s.inBackground(func() { s.expire(added) })
	}
	return active, nil
}

// beginWork has the stack wait for who changes a fault when it closes: both would work
// on the same data.
func (s *Stack) beginWork() (ended func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, fmt.Errorf("%w: the stack is being stopped", ErrConflict)
	}
	s.background.Add(1)
	return s.background.Done, nil
}

// bounded limits the work on one fault, and ends it when the stack closes.
func (s *Stack) bounded(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(parent, applyLimit, fmt.Errorf("not done within %s", applyLimit))
	stop := context.AfterFunc(s.watch, cancel)
	return ctx, func() { stop(); cancel() }
}

// expire removes a fault when its time is over. When that fails it tries again: who
// has asked for a fault of ten seconds does not look after it.
func (s *Stack) expire(f *fault) {
	wait := time.Until(s.snapshot(f).Until)
	for {
		select {
		case <-s.watch.Done():
			return
		case <-f.removed:
			return
		case <-time.After(wait):
		}
		if err := s.RemoveFault(s.watch, f.ID); err == nil || errors.Is(err, ErrNoFault) {
			return
		}
		wait = time.Second
	}
}

// RemoveFault undoes a fault and returns when the service is as it was, or running
// again. When it fails the fault stays, with the reason in Problem. It returns
// [ErrNoFault] when there is none of that id.
func (s *Stack) RemoveFault(ctx context.Context, id string) error {
	ended, err := s.beginWork()
	if err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	defer ended()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	s.mu.Lock()
	i := slices.IndexFunc(s.faults, func(f *fault) bool { return f.ID == id })
	if i < 0 {
		s.mu.Unlock()
		return fmt.Errorf("stack: %w: %s", ErrNoFault, id)
	}
	f := s.faults[i]
	if f.Phase != FaultActive {
		s.mu.Unlock()
		return s.waitRemoved(ctx, f)
	}
	f.Phase = FaultRemoving
	s.mu.Unlock()
	c := s.child(f.Service)
	if err := s.undo(ctx, c, f); err != nil {
		s.setPhase(f, FaultActive, err)
		return fmt.Errorf("stack: undo %s: %w", f.Fault, err)
	}
	s.unregisterFault(f)
	s.notifyFault(c, s.snapshot(f))
	return nil
}

// waitRemoved waits for another who adds or removes the fault just now.
func (s *Stack) waitRemoved(ctx context.Context, f *fault) error {
	for {
		select {
		case <-f.removed:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("stack: fault %s is busy: %w", f.ID, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
		if s.snapshot(f).Phase == FaultActive {
			return s.RemoveFault(ctx, f.ID)
		}
	}
}

// ClearFaults removes all faults, the last one first, and goes on past those that
// cannot be removed: one may stand in the way of another. It tries again as long as
// that removes any.
func (s *Stack) ClearFaults(ctx context.Context) error {
	for {
		var errs []error
		removed := false
		for _, f := range slices.Backward(s.Faults()) {
			switch err := s.RemoveFault(ctx, f.ID); {
			case err == nil:
				removed = true
			case !errors.Is(err, ErrNoFault):
				errs = append(errs, err)
			}
		}
		if len(errs) == 0 || !removed || ctx.Err() != nil {
			return errors.Join(errs...)
		}
	}
}

// Faults returns the faults that there are, in the order in which they were added.
func (s *Stack) Faults() []ActiveFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]ActiveFault, len(s.faults))
	for i, f := range s.faults {
		all[i] = f.ActiveFault
	}
	return all
}

// registerFault writes down a fault that is about to be added.
func (s *Stack) registerFault(f Fault) (*fault, *child, error) {
	c := s.child(f.Service)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil {
		var names []string
		for _, service := range s.servicesLocked() {
			names = append(names, service.Name)
		}
		return nil, nil, fmt.Errorf("%w: %q; there is: %s", ErrNoService, f.Service, strings.Join(names, ", "))
	}
	k, _ := findKind(f.Kind)
	if !slices.Contains(k.roles, c.service.Role) {
		return nil, nil, fmt.Errorf("%w: %s can be done to %s, and %s is %s", ErrBadFault, f.Kind, strings.Join(k.roles, ", "), f.Service, c.service.Role)
	}
	for _, other := range s.faults {
		if other.Service == f.Service && other.Kind == f.Kind {
			return nil, nil, fmt.Errorf("%w: %s has %s already (fault %s); remove that first", ErrConflict, f.Service, f.Kind, other.ID)
		}
	}
	if len(s.faults) >= maxFaults {
		return nil, nil, fmt.Errorf("%w: there are %d faults, and no more are allowed", ErrConflict, len(s.faults))
	}
	s.lastFault++
	undo := k.undo
	if strings.Contains(undo, "%s") {
		undo = fmt.Sprintf(undo, f.Service)
	}
	added := &fault{
		ActiveFault: ActiveFault{
			ID: fmt.Sprint(s.lastFault), Fault: f, Phase: FaultAdding, Since: time.Now(), Undo: undo,
		},
		removed: make(chan struct{}),
	}
	if f.Kind == FaultPromote {
		added.Was = s.cluster.primary().name
	}
	s.faults = append(s.faults, added)
	if err := s.writeFaultsLocked(); err != nil {
		s.faults = s.faults[:len(s.faults)-1]
		return nil, nil, err
	}
	return added, c, nil
}

func (s *Stack) unregisterFault(f *fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Phase = FaultRemoved
	s.faults = slices.DeleteFunc(s.faults, func(other *fault) bool { return other == f })
	close(f.removed)
	_ = s.writeFaultsLocked() // what it says too much is undone twice, which does nothing
}

func (s *Stack) setPhase(f *fault, phase FaultPhase, problem error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Phase, f.Problem = phase, ""
	if problem != nil {
		f.Problem = problem.Error()
	}
	_ = s.writeFaultsLocked() // only the words differ
}

func (s *Stack) snapshot(f *fault) ActiveFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.ActiveFault
}

func (s *Stack) notifyFault(c *child, f ActiveFault) {
	s.mu.Lock()
	service := c.service
	s.mu.Unlock()
	s.cfg.Notify(Event{Service: service, Fault: &f})
}

// holder returns a fault that wants a service not to run; nil when there is none.
func (s *Stack) holder(c *child) *ActiveFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.Phase == FaultRemoving {
			continue
		}
		if f.Kind == FaultKill && f.Service == c.service.Name || f.Kind == FaultPromote && f.Was == c.service.Name {
			held := f.ActiveFault
			return &held
		}
	}
	return nil
}
