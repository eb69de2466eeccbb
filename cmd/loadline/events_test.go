package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/inbox"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

type ordered struct {
	Number int `json:"number"`
}

var orderPlaced = events.Define[ordered]("order.placed", events.V1)

// mesh is a database with the tables, and a broker without streams.
type mesh struct {
	*stacktest.Set
	t *testing.T
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	return &mesh{stacktest.New(t, stacktest.Migrated(outbox.Migrations, inbox.Migrations)), t}
}

// command prepares a run that finds both by its environment, as in a container.
func (m *mesh) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := loadline(ctx, args...)
	cmd.Env = append(cmd.Env, "DATABASE_URL="+m.URL, "NATS_URL="+m.NATSURL, "LOADLINE_EVENTS_WAIT=10s",
		"LOADLINE_EVENTS_STREAM="+m.stream(), "LOADLINE_EVENTS_DEAD_LETTERS="+m.StreamPrefix+"DLQ", "LOADLINE_EVENTS_ADVISORIES="+m.StreamPrefix+"ADVISORIES",
		"LOADLINE_EVENTS_SUBJECT_PREFIX="+m.SubjectPrefix, "LOADLINE_EVENTS_MAX_BYTES=64MiB", "LOADLINE_EVENTS_DEAD_LETTER_MAX_BYTES=16MiB")
	return cmd
}

func (m *mesh) stream() string { return m.StreamPrefix + "EVENTS" }

// result runs a command to its end.
func (m *mesh) result(args ...string) (string, error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	out, err := m.command(ctx, args...).CombinedOutput()
	return string(out), err
}

// refuse runs a command that must fail and say some things.
func (m *mesh) refuse(args []string, want ...string) {
	m.t.Helper()
	out, err := m.result(args...)
	if err == nil {
		m.t.Errorf("loadline %s: it did not fail:\n%s", strings.Join(args, " "), out)
	}
	for _, want := range want {
		if !strings.Contains(out, want) {
			m.t.Errorf("loadline %s: %q is not in:\n%s", strings.Join(args, " "), want, out)
		}
	}
}

func (m *mesh) connect() *pgx.Conn {
	m.t.Helper()
	conn, err := pgx.Connect(m.t.Context(), m.URL)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// add commits n events, in one transaction.
func (m *mesh) add(n int) {
	m.t.Helper()
	err := pgx.BeginFunc(m.t.Context(), m.connect(), func(tx pgx.Tx) error {
		for i := range n {
			e, err := orderPlaced.New(ordered{i})
			if err != nil {
				return err
			}
			if err := outbox.Add(m.t.Context(), tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *mesh) jetStream() jetstream.JetStream {
	m.t.Helper()
	conn, err := nats.Connect(m.NATSURL)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		m.t.Fatal(err)
	}
	return js
}

// messages is how many are in the stream; -1 while there is none.
func (m *mesh) messages(js jetstream.JetStream) int {
	stream, err := js.Stream(m.t.Context(), m.stream())
	if err != nil {
		return -1
	}
	return int(stream.CachedInfo().State.Msgs)
}

func (m *mesh) configs(js jetstream.JetStream) []jetstream.StreamConfig {
	m.t.Helper()
	var all []jetstream.StreamConfig
	for _, name := range []string{"EVENTS", "DLQ", "ADVISORIES"} {
		stream, err := js.Stream(m.t.Context(), m.StreamPrefix+name)
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, stream.CachedInfo().Config)
	}
	return all
}

// What a transaction has added is published; and once more, into streams that are as they were,
// when they are lost.
func TestRelayAndRepublish(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.add(3)
	relay := m.command(t.Context(), "events", "relay", "--max-age", "48h", "--max-messages", "1000", "--dead-letter-max-age", "240h", "--lease-name", "test-relay", "--retention", "48h")
	r := start(t, relay)
	js := m.jetStream()
	r.eventually(20*time.Second, "three events are published", func() bool { return m.messages(js) == 3 })
	m.add(2)
	r.eventually(20*time.Second, "five events are published", func() bool { return m.messages(js) == 5 })
	made := m.configs(js)
	if c := made[0]; c.MaxAge != 48*time.Hour || c.MaxBytes != 64<<20 || c.MaxMsgs != 1000 {
		t.Errorf("the stream is %+v", c)
	}
	if c := made[1]; c.MaxAge != 240*time.Hour || c.MaxBytes != 16<<20 {
		t.Errorf("the dead letters' stream is %+v", c)
	}
	var holder string
	if err := m.connect().QueryRow(t.Context(), "select holder from loadline.outbox_relay").Scan(&holder); err != nil || holder != "test-relay" {
		t.Errorf("the lease is %q's, %v", holder, err)
	}
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	if code := r.waitEnd(10 * time.Second); code != 0 {
		t.Errorf("it ended with %d, want 0", code)
	}

	for _, c := range made {
		if err := js.DeleteStream(t.Context(), c.Name); err != nil {
			t.Fatal(err)
		}
	}
	out, err := m.result("events", "republish", "--since", "1h", "--dry-run", "--nats", "nats://127.0.0.1:1")
	if err != nil || !strings.Contains(out, "found 5, published 0, rejected 0") || m.messages(js) != -1 {
		t.Errorf("dry run: %v; %d messages\n%s", err, m.messages(js), out)
	}
	out, err = m.result("events", "republish", "--since", "1h", "--type", "order.placed", "--max-age", "48h", "--max-messages", "1000", "--dead-letter-max-age", "240h")
	if err != nil || !strings.Contains(out, "found 5, published 5, rejected 0") || m.messages(js) != 5 {
		t.Errorf("republish: %v; %d messages\n%s", err, m.messages(js), out)
	}
	if diff := cmp.Diff(made, m.configs(js), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the streams are not as they were:\n%s", diff)
	}
}

// An interrupt while the broker is waited for ends the command at once.
func TestInterruptWhileWaiting(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	r := start(t, m.command(t.Context(), "events", "relay", "--nats", "nats://"+silent.Addr().String()))
	conn, err := silent.Accept() // it waits
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	if code := r.waitEnd(5 * time.Second); code != 128+int(syscall.SIGINT) {
		t.Errorf("it ended with %d", code)
	}
}

// What is wrong is said, with what to do, and soon.
func TestEventsRefuse(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	empty := stacktest.Postgres(t)
	relay, republish := []string{"events", "relay"}, []string{"events", "republish", "--since", "1h"}
	away := "postgres://app@127.0.0.1:1/app?sslmode=disable"
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"neither server":       {append(relay, "--url=", "--nats="), []string{"--url (variable DATABASE_URL) is not set", "--nats (variable NATS_URL) is not set"}},
		"no connection string": {append(relay, "--url", "app@host"), []string{"is no connection string such as"}},
		"database away":        {append(relay, "--url", away, "--wait", "1s"), []string{"the database was away for 1s", "is it running", "127.0.0.1:1"}},
		"no such database":     {append(relay, "--url", m.URL[:strings.LastIndex(m.URL, "/")]+"/nothere"), []string{"does not let us in", `database "nothere" does not exist`}},
		"a standby":            {append(relay, "--url", m.ReplicaURLs[0], "--wait", "4s"), []string{"is a standby"}},
		"no tables":            {append(relay, "--url", empty.URL), []string{"run loadline migrate"}},
		"no tables to read":    {append(republish, "--url", empty.URL, "--dry-run"), []string{"run loadline migrate"}},
		"broker away":          {append(relay, "--nats", "nats://127.0.0.1:1", "--wait", "1s"), []string{"the broker was away for 1s", "is it running", "connection refused"}},
		"several wrong fields": {append(relay, "--replicas", "9", "--subject-prefix", "a"), []string{"--replicas is 9", `--subject-prefix is "a"`}},
		"fields of the relay":  {append(relay, "--batch", "20000", "--shard", "99"), []string{"--batch is 20000", "--shard is 99"}},
		"a zero":               {append(relay, "--retention", "0s"), []string{"--retention has no meaning for 0 or nothing; leave it out for 72h"}},
		"a size":               {append(relay, "--max-bytes", "much"), []string{`"much" is not a number of bytes such as`}},
		"a policy":             {append(relay, "--on-poison", "ignore"), []string{"--on-poison", `"skip","block"`}},
		"no credentials":       {append(relay, "--nats-credentials", "nowhere.creds"), []string{"--nats-credentials", "nowhere.creds"}},
		"no moment":            {[]string{"events", "republish", "--since", "yesterday"}, []string{`"yesterday" is no time`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			(&mesh{m.Set, t}).refuse(test.args, test.want...)
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A broker that cannot make a stream as asked for says which flag to change.
func TestBrokerWithoutRoom(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.refuse([]string{"events", "relay", "--replicas", "3"}, "set --replicas to 1")
	m.refuse([]string{"events", "republish", "--since", "1h", "--max-bytes", "1048576TiB", "--dead-letter-max-bytes", "1048576TiB"},
		"lower --max-bytes", "lower --dead-letter-max-bytes")
}

// Streams that are there and are otherwise are changed when that is asked for.
func TestUpdateOnDrift(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	js := m.jetStream()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: m.stream(), Subjects: []string{m.SubjectPrefix + "events.>"}}); err != nil {
		t.Fatal(err)
	}
	m.refuse([]string{"events", "relay"}, "set --update-on-drift to change it", "discard is DiscardOld")
	m.add(1)
	r := start(t, m.command(t.Context(), "events", "relay", "--update-on-drift"))
	r.eventually(20*time.Second, "the event is published", func() bool { return m.messages(js) == 1 })
	if c := m.configs(js)[0]; c.Discard != jetstream.DiscardNew {
		t.Errorf("the stream is %+v", c)
	}
	// A bound that differs is no reason to stand still, and is told.
	other := start(t, m.command(t.Context(), "events", "relay", "--max-age", "1h"))
	other.waitPrinted(20*time.Second, "--update-on-drift would change it")
	if out := fmt.Sprint(other.out); strings.Contains(out, "Config.Update") {
		t.Errorf("it names a field:\n%s", out)
	}
}
