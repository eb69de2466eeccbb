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

const causeSQL = `select (select oid from pg_database where datname = current_database()) <> $1::bigint
	or exists (select from loadline.outbox where seq = $2 and id = $3::uuid)
	or exists (select from loadline.outbox_sent where seq = $2 and id = $3::uuid)
	or exists (select from loadline.outbox_dead where seq = $2 and id = $3::uuid)`

// Cause is for events.ConsumerConfig.Cause: of an event that was published before a
// failover, it finds out whether the transaction that it tells of is on the new primary.
// Where the primary does not wait for a standby, it may not be: a relay had published it, and
// the database has forgotten it. Such an event's error is an events.ErrCauseLost.
//
// An event that came by an outbox has its row there or in the archive, or was lost; the
// retention is the relay's, and older events are not judged, nor are those of another
// database's outbox. Without an archive, do not use it. One that was published directly is
// lost if its writer had seen what is. It costs nothing for events of the newest timeline,
// and a transaction for those of others.
func Cause(s Survivors, retention time.Duration) func(ctx context.Context, m *events.Message) error {
	return func(ctx context.Context, m *events.Message) error {
		survived, known := s.Survived(m.Token)
		if survived {
			return nil
		}
		if m.Outbox == "" {
			if known {
				return fmt.Errorf("%w: its writer had seen %s", events.ErrCauseLost, m.Token)
			}
			return nil
		}
		database, seq, ok := parseRow(m.Outbox)
		id, err := uuid.Parse(m.ID)
		if !ok || err != nil || time.Since(m.Time) > retention {
			return nil
		}
		var there bool
		err = s.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			return tx.QueryRow(ctx, causeSQL, int64(database), seq, [16]byte(id)).Scan(&there)
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
