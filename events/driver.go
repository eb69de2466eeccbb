package events

import (
	"context"
	"errors"
	"time"
)

// Errors of drivers, whatever the broker calls them.
var (
	// ErrBackpressure: the broker has no room, and has not taken the message. Try later.
	ErrBackpressure = errors.New("events: the broker has no room")
	// ErrUnavailable: the broker does not answer; it may have taken the message.
	ErrUnavailable = errors.New("events: the broker does not answer")
	// ErrRejected: the broker will never take this message: it is too large, or has no place
	// to go.
	ErrRejected = errors.New("events: the broker does not take this message")
)

// Raw is a message as it travels: encoded.
type Raw struct {
	// ID is that of the message; a broker that finds duplicates finds them by it.
	ID string
	// Type and Partition say where it goes. Partition is -1 for types without keys.
	Type      string
	Partition int
	// Header has names as the driver has got them, and values of printable ASCII.
	Header map[string]string
	Body   []byte
}

// Driver is a broker. Its methods may be called by several goroutines. Publish and
// Subscribe survive restarts of the broker without a new Driver.
type Driver interface {
	// Publish stores messages and returns an error for each, nil when the broker has
	// acknowledged it as stored. It returns when ctx is done at the latest. Messages of one
	// key, by its CloudEvents attribute partitionkey, that are acknowledged are stored in their
	// order, and none after the first of them that is not: those have an [ErrUnavailable]. A
	// message may be stored although its error is not nil; sent again, it is a duplicate. The
	// driver may read the messages until a little after it has returned.
	Publish(ctx context.Context, messages []Raw) []error
	// Subscribe calls deliver for each message, one call after the other, until ctx is
	// done; it returns nil then. For what waits for its call it extends AckWait. The subscription is made if it does not exist, and lasts:
	// members that subscribe under the same name share its messages, and those that are
	// published while there is none wait. Its error is that it cannot be made, or differs
	// from what is there.
	Subscribe(ctx context.Context, s Subscription, deliver func(Delivery)) error
	// Capabilities says what the broker can do.
	Capabilities() Capabilities
}

// Rewinder is what a [Driver] is too whose broker can deliver again what was settled. After
// a failover of the database the effects of some of it are lost: see [Consumer.Rewind].
type Rewinder interface {
	// Floors says up to which position of the stream a subscription has settled all that is
	// for it, for those of the names that there are.
	Floors(ctx context.Context, subscriptions []string) (map[string]uint64, error)
	// Rewind delivers to a subscription again, in order, what comes after a position. Members
	// go on with what they have got. It does nothing when there is no such subscription.
	Rewind(ctx context.Context, subscription string, floor uint64) error
}

// Capabilities are what brokers differ in.
type Capabilities struct {
	Name string // of the driver, such as natsjs
	// DelayedRetry: [Delivery.Retry] waits for as long as it is told to.
	DelayedRetry bool
	// PerMessageAck: messages can be acknowledged in any order.
	PerMessageAck bool
	// BrokerDedupe: a message that is published again within some time is stored once.
	BrokerDedupe bool
	// Ordered: a subscription with MaxInFlight 1 gets a partition's messages in order,
	// through retries and changes of members.
	Ordered bool
	// Replay: subscriptions can begin at a time, [Subscription.StartAt].
	Replay bool
}

// Subscription is what a group of members shares.
type Subscription struct {
	// Name is durable: of the group, and the part of its work.
	Name string
	// Filters are the types and partitions it gets.
	Filters []Filter
	// StartAt is where a subscription that does not exist begins: with what the broker has stored
	// from then on. Zero: with the oldest that it has. One that exists stays where it is, and
	// does not differ by it.
	StartAt time.Time
	// MaxInFlight is how many messages may be delivered and not settled, to all members
	// together.
	MaxInFlight int
	// Prefetch is how many of them a member may hold that it has not begun with.
	Prefetch int
	// AckWait is how long a member may take, without [Delivery.Extend], before another gets
	// the message.
	AckWait time.Duration
	// MaxDeliveries is the broker's own end to a message that kills each process which
	// gets it; the members' own retries end before.
	MaxDeliveries int
}

// Filter is a type, and one of its partitions if it has keys, otherwise -1.
type Filter struct {
	Type      string
	Partition int
}

// Delivery is a message that a member has got, and must settle: by one of Ack, Retry and
// Dead. Who does not gets it again after AckWait, he or another.
type Delivery interface {
	Raw() Raw
	// Attempt counts the deliveries of this message to this subscription, from 1.
	Attempt() int
	// Ack says that it is done.
	Ack(ctx context.Context) error
	// Retry asks for it again, not before a time has passed.
	Retry(ctx context.Context, after time.Duration) error
	// Extend begins AckWait anew.
	Extend(ctx context.Context) error
	// Dead stores it among the dead letters, and then settles it. When that fails it is
	// delivered again.
	Dead(ctx context.Context, letter DeadLetter) error
}

// Reason is why a message is among the dead letters.
type Reason string

const (
	ReasonFailed         Reason = "failed"          // its handler, as often as allowed
	ReasonPermanent      Reason = "permanent"       // its handler has said that it always will
	ReasonUndecodable    Reason = "undecodable"     // it is not what its type says
	ReasonUnknownVersion Reason = "unknown-version" // no handler knows it
	ReasonLostCause      Reason = "lost-cause"      // what it tells of is lost; see ConsumerConfig.Cause
)

// DeadLetter says why a message is dead.
type DeadLetter struct {
	Reason   Reason
	Error    string // of the handler
	Attempts int
	Group    string
	Handler  string // version of the program, where it is known
	Time     time.Time
}

// deadError is what no other attempt can mend.
type deadError struct {
	reason Reason
	err    error
}

func (d *deadError) Error() string { return d.err.Error() }
func (d *deadError) Unwrap() error { return d.err }

// Permanent marks a handler's error as one that no other attempt can mend: the event
// goes to the dead letters at once.
func Permanent(err error) error { return &deadError{ReasonPermanent, err} }

// retryError asks for a delay.
type retryError struct {
	err   error
	after time.Duration
}

func (r *retryError) Error() string { return r.err.Error() }
func (r *retryError) Unwrap() error { return r.err }

// RetryAfter marks a handler's error as one that is worth another attempt after a time,
// such as a third party's Retry-After.
func RetryAfter(err error, after time.Duration) error { return &retryError{err, after} }
