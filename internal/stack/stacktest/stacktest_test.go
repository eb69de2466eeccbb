package stacktest_test

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

var migrations = fstest.MapFS{"00001_note.sql": {Data: []byte(`-- +goose Up
CREATE TABLE note (id bigint PRIMARY KEY, text text NOT NULL);
-- +goose Down
DROP TABLE note;
`)}}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

// A write on the primary arrives on both replicas, which take no writes.
func TestReplicasStream(t *testing.T) {
	t.Parallel()
	db := stacktest.Postgres(t, stacktest.Migrated(migrations))
	if len(db.ReplicaURLs) != 2 {
		t.Fatalf("got %d replicas, want 2", len(db.ReplicaURLs))
	}
	primary := connect(t, db.URL)
	if _, err := primary.Exec(t.Context(), "INSERT INTO note VALUES (1, 'written on the primary')"); err != nil {
		t.Fatal(err)
	}
	for _, url := range db.ReplicaURLs {
		replica := connect(t, url)
		var recovering bool
		if err := replica.QueryRow(t.Context(), "SELECT pg_is_in_recovery()").Scan(&recovering); err != nil || !recovering {
			t.Fatalf("%s is no standby: %v", url, err)
		}
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			var text string
			err := replica.QueryRow(t.Context(), "SELECT text FROM note WHERE id = 1").Scan(&text)
			if err == nil && text == "written on the primary" {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("%s has not got the row: %q, %v", url, text, err)
			}
		}
		if _, err := replica.Exec(t.Context(), "INSERT INTO note VALUES (2, 'on a replica')"); err == nil {
			t.Errorf("%s takes writes", url)
		}
	}
}

func TestSharesAreIsolated(t *testing.T) {
	t.Parallel()
	a, b := stacktest.New(t, stacktest.Migrated(migrations)), stacktest.New(t, stacktest.Migrated(migrations))
	if a.URL == b.URL || a.KeyPrefix == b.KeyPrefix || a.StreamPrefix == b.StreamPrefix || a.SubjectPrefix == b.SubjectPrefix {
		t.Fatalf("two shares overlap: %+v, %+v", a, b)
	}
	if _, err := connect(t, a.URL).Exec(t.Context(), "INSERT INTO note VALUES (1, 'mine')"); err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := connect(t, b.URL).QueryRow(t.Context(), "SELECT count(*) FROM note").Scan(&rows); err != nil || rows != 0 {
		t.Fatalf("the other database has %d rows, want 0: %v", rows, err)
	}
}

// What a test leaves in Redis and NATS is gone when it has ended.
func TestCleanup(t *testing.T) {
	t.Parallel()
	var set *stacktest.Set
	t.Run("leaves something", func(t *testing.T) {
		set = stacktest.New(t)
		client := redisClient(t, set)
		if err := client.Do(t.Context(), client.B().Set().Key(set.KeyPrefix+"key").Value("value").Build()).Error(); err != nil {
			t.Fatal(err)
		}
		_, err := jetStream(t, set).CreateStream(t.Context(), jetstream.StreamConfig{
			Name: set.StreamPrefix + "EVENTS", Subjects: []string{set.SubjectPrefix + ">"},
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	client := redisClient(t, set)
	found, err := client.Do(t.Context(), client.B().Exists().Key(set.KeyPrefix+"key").Build()).AsInt64()
	if err != nil || found != 0 {
		t.Errorf("the key is still there: %d, %v", found, err)
	}
	if _, err := jetStream(t, set).Stream(t.Context(), set.StreamPrefix+"EVENTS"); err == nil {
		t.Error("the stream is still there")
	}
	if conn, err := pgx.Connect(t.Context(), set.URL); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the database is still there")
	}
}

func redisClient(t *testing.T, set *stacktest.Set) rueidis.Client {
	t.Helper()
	options, err := rueidis.ParseURL(set.RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rueidis.NewClient(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func jetStream(t *testing.T, set *stacktest.Set) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(set.NATSURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
