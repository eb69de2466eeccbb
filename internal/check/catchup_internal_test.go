package check

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// What is written after a replica has answered, and before the primary does, is no lag of an hour, though the last transaction before it was an hour ago.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	set, ctx := stacktest.New(t), t.Context()
	primary, err := pgx.Connect(ctx, set.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = primary.Close(ctx) }()
	replica, err := pgx.Connect(ctx, set.ReplicaURLs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = replica.Close(ctx) }()
	said := &pgFacts{System: "7"}
	p := &postgres{replica: true, said: &pgFacts{Standby: true, System: "7", Age: 3600}}
	if _, err := primary.Exec(ctx, "CREATE TABLE written (id int)"); err != nil {
		t.Fatal(err)
	}
	if err := primary.QueryRow(ctx, "SELECT (pg_current_wal_lsn() - '0/0')::bigint").Scan(&said.Position); err != nil {
		t.Fatal(err)
	}
	p.said.Position = said.Position - 1
	for limit := time.Now().Add(10 * time.Second); p.said.Position < said.Position; {
		if time.Now().After(limit) {
			t.Fatal("the replica does not catch up")
		}
		if err := p.catchUp(ctx, replica, said); err != nil {
			t.Fatal(err)
		}
	}
	if p.said.Age > 60 {
		t.Errorf("its last transaction is %v seconds old", p.said.Age)
	}

	// One that stays behind is not waited for for long.
	said.Position += 1 << 40
	began := time.Now()
	if err := p.catchUp(ctx, replica, said); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
