package withsqlx_test

import (
	"fmt"
	"testing"

	"github.com/loadlinehq/loadline/db/sqldb"
	"github.com/loadlinehq/loadline/examples/orm/ormtest"
	"github.com/loadlinehq/loadline/examples/orm/withsqlx"
)

func TestSQLX(t *testing.T) {
	t.Parallel()
	pool := withsqlx.Open(ormtest.Router(t))
	if _, err := pool.ExecContext(t.Context(), "CREATE TABLE account (id bigint PRIMARY KEY, name text NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	replicas := 0
	for i := range 20 {
		ctx := ormtest.Client(t)
		want := withsqlx.Account{ID: 1, Name: fmt.Sprint("ann", i)}
		if err := withsqlx.Rename(ctx, pool, want); err != nil {
			t.Fatal(err)
		}
		if got, err := withsqlx.Find(ctx, pool, 1); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		var replica bool
		if err := pool.GetContext(sqldb.Read(ctx), &replica, "SELECT pg_is_in_recovery()"); err != nil {
			t.Error(err)
		}
		if replica {
			replicas++
		}
	}
	if replicas == 0 {
		t.Error("no query was on a replica")
	}
}
