// Package sqldb lets code that speaks [database/sql] use package db's router: GORM, ent,
// sqlx, or queries by hand.
//
//	pool := sqldb.Open(router)                                 // *sql.DB
//	pool.ExecContext(ctx, "UPDATE …")                          // on the primary
//	pool.QueryContext(sqldb.Read(ctx), "SELECT …")             // where the session may read
//	pool.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})          // the same, for several reads
//
// No SQL is parsed: what is not said to be a read goes to the primary, and a write that is
// said to be one is [db.ErrReadOnly]. Sessions, pools, limits, errors and metrics are the
// router's; the sessions need the Context methods, since they travel in the context.
//
// A connection of the *sql.DB is none to a server: each statement outside of a transaction
// may run on another. What belongs to a server's session does not last from one statement
// to the next: SET, temporary tables, advisory locks, LISTEN; nor does a [sql.Conn] hold
// them. Statements are prepared by pgx, on each connection that they run on.
package sqldb
