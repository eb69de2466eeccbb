package natsjs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// DriftError says how a stream that is there differs from what the configuration asks
// for. It is not changed, since others may use it: [Config.Update] does that.
type DriftError struct {
	Stream string
	Fields []Drift
}

// Drift is a field that differs.
type Drift struct{ Field, Is, Wanted string }

func (e *DriftError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "natsjs: the stream %s differs from the configuration, and is left alone without Config.Update:", e.Stream)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, " %s is %s, wanted %s;", f.Field, f.Is, f.Wanted)
	}
	return strings.TrimSuffix(b.String(), ";")
}

// prepare makes the streams or checks them.
func (d *Driver) prepare(ctx context.Context) error {
	replicas := d.c.Replicas
	if replicas == 0 {
		replicas = 1
		if d.conn.ConnectedClusterName() != "" && len(d.conn.DiscoveredServers()) > 0 {
			replicas = 3
		}
	}
	base := jetstream.StreamConfig{
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Replicas: replicas,
		// The server's default is to throw the oldest away, read or not.
		Discard: jetstream.DiscardNew, MaxMsgs: -1,
	}
	all := base
	all.Name, all.Description = d.eventsName(), "Loadline: events"
	all.Subjects = []string{d.c.SubjectPrefix + "events.>"}
	all.MaxAge, all.MaxBytes, all.MaxMsgs, all.Duplicates = d.c.MaxAge, d.c.MaxBytes, d.c.MaxMessages, d.c.Duplicates
	all.DenyDelete, all.AllowDirect, all.AllowAtomicPublish, all.Compression = true, true, true, jetstream.S2Compression

	dead := base
	dead.Name, dead.Description = d.deadName(), "Loadline: dead letters"
	dead.Subjects = []string{d.c.SubjectPrefix + "dead.>"}
	dead.MaxAge, dead.MaxBytes, dead.Duplicates, dead.AllowDirect = deadMaxAge, min(deadMaxBytes, max(d.c.MaxBytes/deadShare, 1<<20)), d.c.Duplicates, true

	// The second net: what the server gives up because no process has lived to say what
	// became of it, and what was terminated.
	advisories := base
	advisories.Name, advisories.Description = d.advisoryName(), "Loadline: messages that the server has given up"
	for _, kind := range []string{"MAX_DELIVERIES", "MSG_TERMINATED"} {
		advisories.Subjects = append(advisories.Subjects, "$JS.EVENT.ADVISORY.CONSUMER."+kind+"."+d.eventsName()+".>")
	}
	advisories.Discard, advisories.MaxAge, advisories.MaxBytes = jetstream.DiscardOld, advisoryMaxAge, min(advisoryMaxSize, dead.MaxBytes)

	for _, want := range []jetstream.StreamConfig{all, dead, advisories} {
		stream, err := d.ensure(ctx, want)
		if err != nil {
			return err
		}
		if want.Name == all.Name {
			d.stream = stream
		}
	}
	return nil
}

func (d *Driver) ensure(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	stream, err := d.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = d.js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // by another instance, meanwhile
			stream, err = d.js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return nil, d.refused(want, err)
	}
	drift := differences(stream.CachedInfo().Config, want)
	if len(drift) == 0 {
		return stream, nil
	}
	if !d.c.Update {
		return nil, &DriftError{want.Name, drift}
	}
	have := stream.CachedInfo().Config
	merge(&have, want)
	if stream, err = d.js.UpdateStream(ctx, have); err != nil {
		return nil, d.refused(want, err)
	}
	d.log.Info("natsjs: a stream was changed", "stream", want.Name, "changes", fmt.Sprint(drift))
	return stream, nil
}

// refused says what to do about limits of the server.
func (d *Driver) refused(want jetstream.StreamConfig, err error) error {
	hint := ""
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case 10047, 10023, 10028, 10120, 10122:
			hint = fmt.Sprintf("; the server has no room to reserve %d bytes: lower Config.MaxBytes, or raise its max_file_store or the account's limit", want.MaxBytes)
		case jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount:
			hint = "; start it with JetStream (nats-server -js)"
		}
	}
	return fmt.Errorf("natsjs: stream %s: %w%s", want.Name, err, hint)
}

// differences are those that change what is promised. What the configuration does not speak
// of may be as it is.
func differences(have, want jetstream.StreamConfig) (all []Drift) {
	differ := func(field string, have, want any) {
		if fmt.Sprint(have) != fmt.Sprint(want) {
			all = append(all, Drift{field, fmt.Sprint(have), fmt.Sprint(want)})
		}
	}
	slices.Sort(have.Subjects)
	slices.Sort(want.Subjects)
	differ("subjects", have.Subjects, want.Subjects)
	differ("retention", have.Retention, want.Retention)
	differ("storage", have.Storage, want.Storage)
	differ("discard", have.Discard, want.Discard)
	differ("max_age", have.MaxAge, want.MaxAge)
	differ("max_bytes", have.MaxBytes, want.MaxBytes)
	differ("max_msgs", have.MaxMsgs, want.MaxMsgs)
	differ("num_replicas", have.Replicas, want.Replicas)
	if want.Duplicates != 0 {
		differ("duplicate_window", have.Duplicates, want.Duplicates)
	}
	differ("deny_delete", have.DenyDelete, want.DenyDelete)
	differ("allow_atomic", have.AllowAtomicPublish, want.AllowAtomicPublish)
	if have.NoAck {
		differ("no_ack", true, false)
	}
	return all
}

// merge leaves what the configuration does not speak of.
func merge(have *jetstream.StreamConfig, want jetstream.StreamConfig) {
	have.Subjects, have.Discard, have.MaxAge, have.MaxBytes, have.MaxMsgs, have.Replicas = want.Subjects, want.Discard, want.MaxAge, want.MaxBytes, want.MaxMsgs, want.Replicas
	have.DenyDelete, have.AllowAtomicPublish, have.AllowDirect, have.NoAck = want.DenyDelete, want.AllowAtomicPublish, want.AllowDirect, false
	have.Retention, have.Storage = want.Retention, want.Storage // the server refuses that, and says so
	if want.Duplicates != 0 {
		have.Duplicates = want.Duplicates
	}
}
