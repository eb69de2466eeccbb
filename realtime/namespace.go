package realtime

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrForbidden is what a permission returns for who is not allowed. What the client is told is always the same: that it is denied.
var ErrForbidden = errors.New("realtime: it is not allowed")

// Permission says whether a client may do something in a channel of its own tenant: others are refused before. It has
// [PermissionTimeout], and holds up that client alone. An error other than [ErrForbidden] is logged, and the client may try again.
type Permission = func(ctx context.Context, who Identity, c Channel) error

// PermissionTimeout bounds what a [Permission] may ask of databases.
const PermissionTimeout = 5 * time.Second

// Anyone is allowed, those who are not known among them. Who listens to a name that nothing is published to leaves a key in Redis for a while, so
// that a Permission which knows what there is may be better.
func Anyone(context.Context, Identity, Channel) error { return nil }

// Known is who has a User.
func Known(_ context.Context, who Identity, _ Channel) error {
	if who.User == "" {
		return ErrForbidden
	}
	return nil
}

// Own is the user whose id is the channel's name.
func Own(_ context.Context, who Identity, c Channel) error {
	if who.User == "" || who.User != c.Name {
		return ErrForbidden
	}
	return nil
}

// Namespace is what channels with the same front have in common. Its zero value lets nobody in.
type Namespace struct {
	// Subscribe says who may listen. Default nobody.
	Subscribe Permission
	// Publish says which clients may publish: what they send goes to all as it is. Default none, but the application by [Gateway.Publish].
	Publish Permission

	// History is how many publications are kept for who comes back, and HistoryAge for how long: both, or none. Without it nothing that
	// was missed is brought, and long polling, which misses something between any two polls, is refused. It should be longer than
	// a restart of all gateways takes, with a reconnect: some minutes. All of it together should be what a client reads in some seconds: History
	// is 1,000 at most.
	History    int
	HistoryAge time.Duration
	// State: each publication is the whole state, so that the latest one alone is brought, to who subscribes first as well, and one
	// with a lower Version than the latest is dropped. It needs History.
	State bool

	// Presence: who listens may ask who else does, by user and connection. It costs Redis a write per client and Config.Check. Clients that
	// poll are not seen.
	Presence bool
	// JoinLeave tells those who listen of who comes and goes.
	JoinLeave bool

	// MaxSubscribers bounds those of one channel at this gateway. Default: none.
	MaxSubscribers int
}

func (n Namespace) validate(name string) (errs []error) {
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("realtime: Config.Namespaces[%q]"+format, append([]any{name}, args...)...))
		}
	}
	if err := checkNamespace(name); err != nil {
		errs = append(errs, fmt.Errorf("realtime: Config.Namespaces: %w", err))
	}
	wrong(n.History < 0, ".History is %d, less than nothing", n.History)
	wrong(n.HistoryAge < 0, ".HistoryAge is %v, less than nothing", n.HistoryAge)
	wrong((n.History > 0) != (n.HistoryAge > 0), " has one of History (%d) and HistoryAge (%v): it needs both, or none", n.History, n.HistoryAge)
	wrong(n.History > maxHistory, ".History is %d, more than %d: who comes back is given all of it at once", n.History, maxHistory)
	wrong(n.HistoryAge > 0 && n.HistoryAge < time.Second, ".HistoryAge is %v, less than a second", n.HistoryAge)
	wrong(n.State && n.History == 0, ".State needs History")
	wrong(n.MaxSubscribers < 0, ".MaxSubscribers is %d, less than nothing", n.MaxSubscribers)
	return errs
}

const maxHistory = maxAsked
