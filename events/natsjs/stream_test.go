package natsjs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/events/natsjs"
	"github.com/loadlinehq/loadline/internal/stack/stacktest"
)

func jetStream(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func stream(t testing.TB, js jetstream.JetStream, name string) *jetstream.StreamInfo {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo()
}

func TestConfigReportsAll(t *testing.T) {
	t.Parallel()
	err := natsjs.Config{
		Stream: "a.b", DeadLetters: "X", Advisories: "X", SubjectPrefix: "a", Replicas: 7, MaxAge: -1, MaxBytes: 1, MaxMessages: -1,
		DeadLetterMaxBytes: 1, Duplicates: 1, PurgeAt: 2, Interval: 1, Options: []nats.Option{nats.Name("x")}, Conn: nil,
	}.Validate()
	for _, field := range []string{"URL", "Stream", "Advisories", "SubjectPrefix", "Replicas", "MaxAge", "MaxBytes", "MaxMessages", "DeadLetterMaxBytes", "Duplicates", "PurgeAt", "Interval"} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field) && !strings.Contains(err.Error(), field+" ") {
			t.Errorf("%s is not reported: %v", field, err)
		}
	}
	if err := (natsjs.Config{URL: "nats://127.0.0.1:4222"}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (natsjs.Config{URL: "nats://127.0.0.1:4222", Conn: new(nats.Conn)}).Validate(); err == nil {
		t.Error("a URL and a connection are one too many")
	}
}

// The defaults are what protects from silent loss.
func TestStreamsAreMadeSafe(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	d := open(t, c)
	if drift := d.Drift(); len(drift) > 0 {
		t.Errorf("what was just made differs: %v", drift)
	}
	js := jetStream(t, c.URL)
	is := stream(t, js, c.Stream).Config
	if is.Storage != jetstream.FileStorage || is.Retention != jetstream.LimitsPolicy || is.Discard != jetstream.DiscardNew || is.MaxAge != 72*time.Hour ||
		is.MaxBytes != c.MaxBytes || is.MaxMsgs != -1 || !is.DenyDelete || !is.AllowDirect || !is.AllowAtomicPublish || is.Compression != jetstream.S2Compression ||
		is.Duplicates != 5*time.Minute || is.Replicas != 1 || is.PersistMode != jetstream.DefaultPersistMode {
		t.Errorf("the stream is %+v", is)
	}
	dead := stream(t, js, c.DeadLetters).Config
	if dead.Discard != jetstream.DiscardNew || dead.MaxAge != 30*24*time.Hour || dead.DenyDelete {
		t.Errorf("the dead letters' stream is %+v", dead)
	}
	if advisories := stream(t, js, c.Advisories).Config; advisories.MaxAge != 7*24*time.Hour || len(advisories.Subjects) != 2 {
		t.Errorf("the advisories' stream is %+v", advisories)
	}
}

func TestDriftIsReportedAndLeftAlone(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	js := jetStream(t, c.URL)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: c.Stream, Subjects: []string{c.SubjectPrefix + "events.>"}, MaxAge: time.Hour, Duplicates: time.Minute, Description: "somebody's",
	}); err != nil {
		t.Fatal(err)
	}
	_, err := natsjs.Open(t.Context(), c)
	drift, ok := errors.AsType[*natsjs.DriftError](err)
	if !ok || len(drift.Drifts) != 1 || drift.Drifts[0].Field != "discard" || drift.Drifts[0].Is != "DiscardOld" || drift.Drifts[0].Wanted != "DiscardNew" {
		t.Fatalf("got %v", err)
	}
	if is := stream(t, js, c.Stream).Config; is.Discard != jetstream.DiscardOld || is.MaxAge != time.Hour {
		t.Errorf("it was changed: %+v", is)
	}
	update := c
	update.Update = true
	d := open(t, update)
	if len(d.Drift()) > 0 {
		t.Errorf("there is still %v", d.Drift())
	}
	if is := stream(t, js, c.Stream).Config; is.Discard != jetstream.DiscardNew || is.MaxAge != 72*time.Hour || is.Description != "somebody's" {
		t.Errorf("it was not changed, or too much: %+v", is)
	}
	// What no guarantee depends on is told, and not refused: an operator may have set it.
	c.MaxAge, c.MaxMessages = 48*time.Hour, 7
	d = open(t, c)
	fields := ""
	for _, drift := range d.Drift() {
		fields += drift.Field + " "
	}
	if fields != "max_age max_msgs " {
		t.Errorf("the drift is in %q: %v", fields, d.Drift())
	}
}

// persist_mode: async switches the server's sync_interval: always off for a stream.
func TestPersistModeIsChecked(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	js := jetStream(t, c.URL)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: c.Stream, Subjects: []string{c.SubjectPrefix + "events.>"}, Discard: jetstream.DiscardNew, PersistMode: jetstream.AsyncPersistMode,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := natsjs.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "persist_mode") {
		t.Errorf("got %v", err)
	}
}

func TestNoRoomSaysWhatToSet(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	c.MaxBytes = 1 << 60
	_, err := natsjs.Open(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "lower Config.MaxBytes") {
		t.Errorf("got %v", err)
	}
	c.MaxBytes, c.Replicas = 1<<20, 3
	if _, err := natsjs.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "Config.Replicas") {
		t.Errorf("got %v", err)
	}
}

func TestOpenWithoutServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := natsjs.Open(ctx, natsjs.Config{URL: "nats://127.0.0.1:1"})
	if !errors.Is(err, events.ErrUnavailable) || !strings.Contains(err.Error(), "refused") || time.Since(began) > 2*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestCloseLeavesTheApplicationsConnection(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	conn := connect(t, c.URL)
	c.URL, c.Conn = "", conn
	d := open(t, c)
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if conn.IsClosed() {
		t.Error("it is closed")
	}
	if err := d.Subscribe(t.Context(), events.Subscription{Name: "a", Filters: []events.Filter{{Type: "a", Partition: -1}}, AckWait: time.Second}, nil); !errors.Is(err, natsjs.ErrClosed) {
		t.Errorf("a closed driver subscribes: %v", err)
	}
	if err := d.Run(t.Context()); !errors.Is(err, natsjs.ErrClosed) {
		t.Errorf("a closed driver runs: %v", err)
	}
}

// A stream that is gone is nobody's fault whose message comes by then; one that does not
// take the subject will never.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	c := config(stacktest.New(t))
	d := open(t, c)
	js := jetStream(t, c.URL)
	raw := events.Raw{ID: "1", Type: "a", Partition: -1}
	is := stream(t, js, c.Stream).Config
	is.Subjects = []string{c.SubjectPrefix + "events.b.>"}
	if _, err := js.UpdateStream(t.Context(), is); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(t.Context(), []events.Raw{raw})[0]; !errors.Is(err, events.ErrRejected) {
		t.Errorf("a subject that is not taken: %v", err)
	}
	if err := js.DeleteStream(t.Context(), c.Stream); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(t.Context(), []events.Raw{raw})[0]; !errors.Is(err, events.ErrUnavailable) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("a stream that is gone: %v", err)
	}
}
