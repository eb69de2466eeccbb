package natsjs

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Drift is a setting of a stream or a subscription that is not as it should be.
type Drift struct {
	Of         string // the stream, or stream/consumer
	Field      string // as in the server's JSON
	Is, Wanted string
	// Unsafe: a guarantee depends on it.
	Unsafe bool
}

func (d Drift) String() string {
	return fmt.Sprintf("%s: %s is %s, wanted %s", d.Of, d.Field, d.Is, d.Wanted)
}

// DriftError is what Open and Subscribe return when something is there and differs.
type DriftError struct{ Drifts []Drift }

func (e *DriftError) Error() string {
	var b strings.Builder
	b.WriteString("natsjs: the server has it otherwise; set Config.Update to change it, or change it by hand:")
	for _, d := range e.Drifts {
		b.WriteString("\n  " + d.String())
	}
	return b.String()
}

// streams are those that the driver needs.
func (d *Driver) streams() []jetstream.StreamConfig {
	c := d.c
	replicas := c.Replicas
	if replicas == 0 {
		replicas = 1
		if d.conn.ConnectedClusterName() != "" {
			replicas = clusterReplicas
		}
	}
	maxMessages := c.MaxMessages
	if maxMessages == 0 {
		maxMessages = -1
	}
	advisory := func(kind string) string { return "$JS.EVENT.ADVISORY.CONSUMER." + kind + "." + c.Stream + ".>" }
	return []jetstream.StreamConfig{
		{
			Name: c.Stream, Description: "Loadline: events", Subjects: []string{d.events + ">"},
			Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, Replicas: replicas,
			MaxAge: c.MaxAge, MaxBytes: c.MaxBytes, MaxMsgs: maxMessages, Duplicates: c.Duplicates,
			DenyDelete: true, AllowDirect: true, AllowAtomicPublish: true, Compression: jetstream.S2Compression,
		},
		{
			Name: c.DeadLetters, Description: "Loadline: dead letters", Subjects: []string{d.dead + ">"},
			Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, Replicas: replicas,
			MaxAge: c.DeadLetterMaxAge, MaxBytes: c.DeadLetterMaxBytes, MaxMsgs: -1, Duplicates: c.Duplicates,
			AllowDirect: true, Compression: jetstream.S2Compression,
		},
		{
			// The server says once that it has given a message up, to whoever listens. Of this
			// stream's alone: two may not listen to the same.
			Name: c.Advisories, Description: "Loadline: messages that the server has given up",
			Subjects: []string{advisory("MAX_DELIVERIES"), advisory("MSG_TERMINATED")},
			Storage:  jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, Replicas: replicas,
			MaxAge: advisoriesMaxAge, MaxBytes: advisoriesMaxBytes, MaxMsgs: -1, Duplicates: min(2*time.Minute, advisoriesMaxAge),
			AllowDirect: true, Compression: jetstream.S2Compression,
		},
	}
}

func (d *Driver) prepareStreams(ctx context.Context) error {
	var errs []error
	var unsafe []Drift
	for _, want := range d.streams() {
		drifts, err := d.insistOnStream(ctx, want)
		if err != nil {
			errs = append(errs, err)
		}
		for _, drift := range drifts {
			if drift.Unsafe {
				unsafe = append(unsafe, drift)
			} else {
				d.drift = append(d.drift, drift)
				d.log.WarnContext(ctx, "natsjs: a stream is not as configured; Config.Update would change it", "stream", drift.Of, "field", drift.Field, "is", drift.Is, "wanted", drift.Wanted)
			}
		}
	}
	if len(unsafe) > 0 {
		errs = append(errs, &DriftError{unsafe})
	}
	return errors.Join(errs...)
}

// insistOnStream prepares a stream until the server has answered, or ctx is done.
func (d *Driver) insistOnStream(ctx context.Context, want jetstream.StreamConfig) ([]Drift, error) {
	for {
		asking, cancel := d.asking(ctx, requestLimit)
		drifts, err := d.prepareStream(asking, want)
		cancel()
		if err == nil || !passing(err) || d.isClosed() {
			return drifts, err
		}
		select {
		case <-ctx.Done():
			return drifts, err
		case <-time.After(retryFirst):
		}
	}
}

// prepareStream makes a stream, or returns where the one that is there differs.
func (d *Driver) prepareStream(ctx context.Context, want jetstream.StreamConfig) ([]Drift, error) {
	stream, err := d.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if stream, err = d.js.CreateStream(ctx, want); errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			stream, err = d.js.Stream(ctx, want.Name) // another was quicker, with another configuration
		}
	}
	if err != nil {
		return nil, d.streamError(ctx, want, err)
	}
	is := stream.CachedInfo().Config
	drifts := streamDrift(is, want)
	if len(drifts) == 0 || !d.c.Update {
		return drifts, nil
	}
	changed := merge(is, want)
	if _, err := d.js.UpdateStream(ctx, changed); err != nil {
		return drifts, d.streamError(ctx, want, err)
	}
	for _, drift := range drifts {
		d.log.InfoContext(ctx, "natsjs: a stream was changed", "stream", drift.Of, "field", drift.Field, "was", drift.Is, "is", drift.Wanted)
	}
	return nil, nil
}

// setting is one that is compared.
type setting struct {
	field  string
	get    func(*jetstream.StreamConfig) any // a pointer to it
	unsafe bool
}

var settings = []setting{
	{"subjects", func(c *jetstream.StreamConfig) any { return &c.Subjects }, true},
	{"storage", func(c *jetstream.StreamConfig) any { return &c.Storage }, true},
	{"retention", func(c *jetstream.StreamConfig) any { return &c.Retention }, true},
	{"discard", func(c *jetstream.StreamConfig) any { return &c.Discard }, true},
	{"no_ack", func(c *jetstream.StreamConfig) any { return &c.NoAck }, true},
	{"sealed", func(c *jetstream.StreamConfig) any { return &c.Sealed }, true},
	{"max_msgs_per_subject", func(c *jetstream.StreamConfig) any { return &c.MaxMsgsPerSubject }, true},
	// async switches the server's sync_interval: always off for the stream.
	{"persist_mode", func(c *jetstream.StreamConfig) any { return &c.PersistMode }, true},
	{"num_replicas", func(c *jetstream.StreamConfig) any { return &c.Replicas }, false},
	{"max_age", func(c *jetstream.StreamConfig) any { return &c.MaxAge }, false},
	{"max_bytes", func(c *jetstream.StreamConfig) any { return &c.MaxBytes }, false},
	{"max_msgs", func(c *jetstream.StreamConfig) any { return &c.MaxMsgs }, false},
	{"duplicate_window", func(c *jetstream.StreamConfig) any { return &c.Duplicates }, false},
	{"deny_delete", func(c *jetstream.StreamConfig) any { return &c.DenyDelete }, false},
	{"deny_purge", func(c *jetstream.StreamConfig) any { return &c.DenyPurge }, false}, // Run could make no room
	{"allow_direct", func(c *jetstream.StreamConfig) any { return &c.AllowDirect }, false},
	{"allow_atomic", func(c *jetstream.StreamConfig) any { return &c.AllowAtomicPublish }, false},
	{"compression", func(c *jetstream.StreamConfig) any { return &c.Compression }, false},
}

func streamDrift(is, want jetstream.StreamConfig) []Drift {
	want.MaxMsgsPerSubject = -1 // as the server has it
	if is.MaxMsgsPerSubject == 0 {
		is.MaxMsgsPerSubject = -1
	}
	slices.Sort(want.Subjects)
	is.Subjects = slices.Sorted(slices.Values(is.Subjects))
	var drifts []Drift
	for _, s := range settings {
		a, b := reflect.ValueOf(s.get(&is)).Elem(), reflect.ValueOf(s.get(&want)).Elem()
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			drifts = append(drifts, Drift{is.Name, s.field, fmt.Sprint(a.Interface()), fmt.Sprint(b.Interface()), s.unsafe})
		}
	}
	return drifts
}

// merge changes what the driver cares for, and leaves the rest, such as placement.
func merge(is, want jetstream.StreamConfig) jetstream.StreamConfig {
	want.MaxMsgsPerSubject = -1
	for _, s := range settings {
		reflect.ValueOf(s.get(&is)).Elem().Set(reflect.ValueOf(s.get(&want)).Elem())
	}
	return is
}

// streamError says what to do where the server does not have the room.
func (d *Driver) streamError(ctx context.Context, want jetstream.StreamConfig, err error) error {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return fmt.Errorf("natsjs: stream %s: %w", want.Name, unavailable(err))
	}
	hint := ""
	switch api.ErrorCode {
	case codeResourcesExceeded, codeInsufficient, codeStorageExceeded, codeMaxStreamBytes:
		field := map[string]string{d.c.Stream: "Config.MaxBytes", d.c.DeadLetters: "Config.DeadLetterMaxBytes"}[want.Name]
		if field == "" {
			field = "what other streams set aside"
		}
		hint = fmt.Sprintf("; the server has no room to set %d bytes aside%s: lower %s, or raise the server's max_file_store or the account's limits", want.MaxBytes, d.storage(ctx), field)
	case codeReplicasUnsupported:
		hint = "; set Config.Replicas to 1, or run a cluster"
	}
	if want.Replicas > 1 && api.ErrorCode == jetstream.ErrorCode(10005) { // no suitable peers
		hint = fmt.Sprintf("; %d servers with JetStream are needed: set Config.Replicas", want.Replicas)
	}
	return fmt.Errorf("natsjs: stream %s: %w%s", want.Name, unavailable(err), hint)
}

// storage says what the account has.
func (d *Driver) storage(ctx context.Context) string {
	info, err := d.js.AccountInfo(ctx)
	if err != nil || info.Limits.MaxStore < 0 {
		return ""
	}
	return fmt.Sprintf(" (the account has %d, of which %d are taken)", info.Limits.MaxStore, max(info.ReservedStore, info.Store))
}
