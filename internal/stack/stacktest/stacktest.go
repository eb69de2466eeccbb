// Package stacktest gives tests real servers: a PostgreSQL primary with two
// streaming replicas, Redis, and NATS with JetStream.
//
// They are started by the first test that asks and shared by all packages of a
// `go test` run (see internal/stack/shared); each test gets a database, a prefix
// for keys, and prefixes for streams and subjects of its own, which are removed
// when it ends. A test must not stop or slow down these servers; one that needs
// to starts its own with stack.Open.
//
// A test fails when the servers cannot be started: a suite that skips then is
// green for nothing. Only -short skips.
package stacktest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/rueidis"

	"github.com/loadlinehq/loadline/internal/stack/shared"
)

// Set is a test's share of all servers.
type Set struct {
	Database

	RedisURL  string // redis://host:port
	KeyPrefix string // of every key that the test uses

	NATSURL       string // nats://host:port
	StreamPrefix  string // of the name of every stream
	SubjectPrefix string // of every subject, with the dot at its end
}

type config struct {
	migrations []fs.FS
}

// Option changes what a test gets.
type Option func(*config)

// Migrated fills the database by goose migrations, each set with versions of its own.
// They run once, into a template that the test's database is a copy of.
func Migrated(migrations ...fs.FS) Option {
	return func(c *config) { c.migrations = append(c.migrations, migrations...) }
}

// New returns a share of all servers.
func New(t testing.TB, options ...Option) *Set {
	t.Helper()
	servers := start(t)
	name := randomName()
	set := &Set{
		Database:      *newDatabase(t, servers, options),
		RedisURL:      "redis://" + servers.Redis,
		KeyPrefix:     name + ":",
		NATSURL:       "nats://" + servers.NATS,
		StreamPrefix:  name + "_",
		SubjectPrefix: name + ".",
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := deleteKeys(ctx, servers.Redis, set.KeyPrefix); err != nil {
			t.Errorf("stacktest: redis: %v", err)
		}
		if err := deleteStreams(ctx, set.NATSURL, set.StreamPrefix); err != nil {
			t.Errorf("stacktest: nats: %v", err)
		}
	})
	return set
}

// Postgres returns a database of its own, on the primary and its replicas.
func Postgres(t testing.TB, options ...Option) *Database {
	t.Helper()
	return newDatabase(t, start(t), options)
}

// joined is this process's lease. It is never closed, so that the servers stay for
// the process's next test, and reachable from here.
var joined = sync.OnceValues(func() (*shared.Lease, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("loadline-test-%d-%s", os.Getuid(), shortHash(root)))
	return shared.Join(context.Background(), dir, func(ctx context.Context) ([]string, error) {
		program := dir + ".loadline"
		build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/loadline")
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build loadline: %w\n%s", err, out)
		}
		return []string{program, "test-stack", "--data", dir}, nil
	})
})

func start(t testing.TB) shared.Servers {
	t.Helper()
	if testing.Short() {
		t.Skip("stacktest: needs real servers; skipped by -short")
	}
	lease, err := joined()
	if err != nil {
		t.Fatalf("stacktest: %v", err)
	}
	return lease.Servers
}

// moduleRoot is found by where this file was compiled, since tests of other modules
// use this package as well.
func moduleRoot() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("this file's place is not known")
	}
	root := filepath.Join(filepath.Dir(file), "..", "..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		return "", fmt.Errorf("loadline's source is needed (and no -trimpath): %w", err)
	}
	return root, nil
}

func randomName() string {
	random := make([]byte, 5)
	_, _ = rand.Read(random) // never fails
	return "t" + hex.EncodeToString(random)
}

func deleteKeys(ctx context.Context, addr, prefix string) error {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
	if err != nil {
		return err
	}
	defer client.Close()
	for cursor := uint64(0); ; {
		page, err := client.Do(ctx, client.B().Scan().Cursor(cursor).Match(prefix+"*").Count(1000).Build()).AsScanEntry()
		if err != nil {
			return err
		}
		if len(page.Elements) > 0 {
			if err := client.Do(ctx, client.B().Unlink().Key(page.Elements...).Build()).Error(); err != nil {
				return err
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}

func deleteStreams(ctx context.Context, url, prefix string) error {
	conn, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	names := js.StreamNames(ctx)
	var errs []error
	for name := range names.Name() {
		if strings.HasPrefix(name, prefix) {
			errs = append(errs, js.DeleteStream(ctx, name))
		}
	}
	return errors.Join(append(errs, names.Err())...)
}
