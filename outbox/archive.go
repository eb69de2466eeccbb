package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	daysAhead     = 2
	maintainEvery = time.Hour
	maintainAgain = time.Minute
	partitionName = "outbox_sent_20060102"

	partitionsSQL = `select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = 'loadline.outbox_sent'::regclass and c.relname ~ '^outbox_sent_[0-9]{8}$'`
	// trimSQL is for rows that came while no partition could be made.
	trimSQL = "delete from loadline.outbox_sent_default where sent_at < now() - $1::interval"
)

// maintain makes the archive's partitions, two days ahead, and drops those that are old.
// Both need locks that a report on the archive may hold up; then the next try is in a
// minute, and the rows of a day without a partition go to the default one.
func (s *session) maintain(ctx context.Context) error {
	if s.r.c.Retention < 0 || time.Now().Before(s.nextDay) {
		return nil
	}
	s.nextDay = time.Now().Add(maintainEvery)
	err := s.partitions(ctx)
	if err != nil && !s.l.conn.IsClosed() {
		s.nextDay = time.Now().Add(maintainAgain)
		s.r.c.Logger.WarnContext(ctx, "outbox: the archive's partitions could not be seen to; it goes on in its default partition", "error", err)
		return nil
	}
	return err
}

func (s *session) partitions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.r.c.StatementTimeout+time.Second)
	defer cancel()
	conn := s.l.conn
	var now time.Time
	if err := conn.QueryRow(ctx, "select now()").Scan(&now); err != nil {
		return err
	}
	rows, _ := conn.Query(ctx, partitionsSQL)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	var errs []error // one that cannot be seen to now keeps no other
	there := make(map[string]bool)
	today := now.UTC().Truncate(24 * time.Hour)
	for _, name := range names {
		there[name] = true
		day, err := time.Parse(partitionName, name)
		if err != nil || day.Add(24*time.Hour).After(now.Add(-s.r.c.Retention)) {
			continue
		}
		errs = append(errs, locked(ctx, conn, "drop table loadline."+name))
	}
	for ahead := range daysAhead + 1 {
		day := today.AddDate(0, 0, ahead)
		name := day.Format(partitionName)
		if there[name] {
			continue
		}
		// Attaching takes a weaker lock on the archive than making it as a partition. The
		// default one it needs for itself anyway, to see that it has none of these rows.
		sql := fmt.Sprintf(`lock table loadline.outbox_sent_default in access exclusive mode;
			create table loadline.%[1]s (like loadline.outbox_sent including all);
			with moved as (delete from loadline.outbox_sent_default where sent_at >= '%[2]s' and sent_at < '%[3]s' returning *)
			insert into loadline.%[1]s select * from moved;
			alter table loadline.outbox_sent attach partition loadline.%[1]s for values from ('%[2]s') to ('%[3]s')`,
			name, day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339))
		errs = append(errs, locked(ctx, conn, sql))
	}
	_, err = conn.Exec(ctx, trimSQL, s.r.c.Retention)
	return errors.Join(append(errs, err)...)
}

// locked does not wait long for locks: those who come after wait behind it.
func locked(ctx context.Context, conn *pgx.Conn, sql string) error {
	// Statements in one message are one transaction.
	_, err := conn.Exec(ctx, "set local lock_timeout = '200ms';"+sql)
	return err
}
