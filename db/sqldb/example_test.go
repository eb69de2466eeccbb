package sqldb_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/db/sqldb"
)

func Example() {
	if os.Getenv("DATABASE_URL") == "" {
		return // a server with a table account
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	router, err := db.Open(ctx, db.Config{Primary: os.Getenv("DATABASE_URL")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer router.Close()
	go func() { _ = router.Run(ctx) }()
	pool := sqldb.Open(router)
	defer pool.Close()

	// What causal.HTTP does for each request.
	ctx = causal.WithSession(ctx, causal.NewSession(causal.Token{}))

	if _, err := pool.ExecContext(ctx, "UPDATE account SET name = $1 WHERE id = $2", "ann", 1); err != nil {
		fmt.Println(err)
		return
	}
	var name string
	err = pool.QueryRowContext(sqldb.Read(ctx), "SELECT name FROM account WHERE id = $1", 1).Scan(&name)
	fmt.Println(name, err)

	// Several reads of one state, on one server.
	tx, err := pool.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = tx.Rollback() }()
}
