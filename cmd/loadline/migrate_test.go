package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

// Tables are made once; what is printed makes the same.
func TestMigrateCommand(t *testing.T) {
	t.Parallel()
	database := stacktest.Postgres(t)
	out, err := result(t, "migrate", "--url", database.URL)
	if err != nil || !strings.Contains(out, "applied outbox/") || !strings.Contains(out, "applied inbox/") {
		t.Errorf("the first time: %v\n%s", err, out)
	}
	if out, err := result(t, "migrate", "--url", database.URL); err != nil || out != "the tables are up to date\n" {
		t.Errorf("the second time: %v\n%s", err, out)
	}
	printed, err := result(t, "migrate", "--print") // without a database
	if err != nil {
		t.Fatalf("--print: %v\n%s", err, printed)
	}
	other := stacktest.Postgres(t)
	if got, want := relations(t, other.URL, printed), relations(t, database.URL, ""); got != want {
		t.Errorf("the SQL that is printed makes\n%s\nand migrate makes\n%s", got, want)
	}
}

// relations are the tables and indexes of the schema, after some SQL.
func relations(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
	var all string
	err = conn.QueryRow(t.Context(), `select string_agg(c.relname || ' ' || c.relkind::text, e'\n' order by c.relname) from pg_class c
		join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'loadline' and c.relname !~ '^migrations_'`).Scan(&all)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMigrateRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		url  string
		want string
	}{
		"no database":   {"", "--print shows the SQL"},
		"database away": {"postgres://app@127.0.0.1:1/app?sslmode=disable", "the database was away for 12s; is it running"},
		"a standby":     {stacktest.Postgres(t).ReplicaURLs[0], "is a standby"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			out, err := result(t, "migrate", "--url", test.url)
			if took := time.Since(began); err == nil || !strings.Contains(out, test.want) || took > 30*time.Second {
				t.Errorf("after %v: %v; %q is not in:\n%s", took, err, test.want, out)
			}
		})
	}
}
