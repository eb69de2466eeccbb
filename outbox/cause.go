package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
)

// Survivors says what failovers have left; a db.Router does.
type Survivors interface {
	// InTx calls f with a transaction on the primary.
	InTx(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error
	// Survived says whether what a token has seen is on the newest timeline, and whether
	// that is known.
	Survived(t causal.Token) (survived, known bool)
}

const causeSQL = `select exists (select from loadline.outbox where seq = $1 and id = $2::uuid)
	or exists (select from loadline.outbox_sent where seq = $1 and id = $2::uuid)
	or exists (select from loadline.outbox_dead where seq = $1 and id = $2::uuid)`

// Cause is for inbox.Config.Cause, or for events.ConsumerConfig.Cause where there is no inbox: of an
// event that was published before a failover, it finds out whether the transaction that
// it tells of is on the new primary. Where the primary does not wait for a standby, it may
// not be: a relay had published it, and the database has forgotten it. Such an event's error is an
// events.ErrCauseLost.
//
// An event that came by an outbox has its row there or in the archive, or was lost; the
// retention is the relay's, and older events are not judged, nor are those of another
// database's outbox, and those that were published directly. Without an archive, do not use it.
// It costs nothing for events of the newest timeline, and a query for those of others, in
// the transaction that the context has.
func Cause(s Survivors, retention time.Duration) func(ctx context.Context, m *events.Message) error {
	return func(ctx context.Context, m *events.Message) error {
		if survived, _ := s.Survived(m.Token); survived {
			return nil
		}
		in, seq, ok := parseRow(m.Outbox)
		id, err := uuid.Parse(m.ID)
		if !ok || err != nil || time.Since(addedAt(m, id)) > retention {
			return nil
		}
		there := true
		err = s.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			here, err := placeOf(ctx, tx)
			if err != nil || here.system != in.system || here.database != in.database {
				return err
			}
			return tx.QueryRow(ctx, causeSQL, seq, [16]byte(id)).Scan(&there)
		})
		switch {
		case err != nil:
			return fmt.Errorf("outbox: the cause of event %s: %w", m.ID, err)
		case !there:
			return fmt.Errorf("%w: row %s of the outbox is not there", events.ErrCauseLost, m.Outbox)
		}
		return nil
	}
}

// addedAt is when an event was made. What it says itself may be when something has happened,
// long before.
func addedAt(m *events.Message, id uuid.UUID) time.Time {
	if id.Version() != 7 {
		return m.Time
	}
	seconds, nanoseconds := id.Time().UnixTime()
	return time.Unix(seconds, nanoseconds)
}
