package outbox

// RelayState is what a relay does at a moment.
type RelayState string

const (
	// Away: it has no database that it works with, or does not run.
	Away RelayState = "away"
	// StandingBy: another has the lease, and this one looks for its end.
	StandingBy RelayState = "standing by"
	// Leading: it has the lease, and publishes, unless the broker is away.
	Leading RelayState = "leading"
)

// State says what the relay does, for a health check: one that is away for minutes has a
// database that is, or hangs. It says nothing of the broker: see the metric
// loadline.outbox.relay.paused.
func (r *Relay) State() RelayState {
	switch {
	case r.m.active.Load():
		return Leading
	case r.standingBy.Load():
		return StandingBy
	}
	return Away
}
