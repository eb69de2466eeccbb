package natsjs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

// Error codes of the server that nats.go has no names for (server/errors.json).
const (
	codeResourcesExceeded   jetstream.ErrorCode = 10002 // of the account
	codeInsufficient        jetstream.ErrorCode = 10023
	codeMemoryExceeded      jetstream.ErrorCode = 10028
	codeStorageExceeded     jetstream.ErrorCode = 10047
	codeStoreFailed         jetstream.ErrorCode = 10077 // the text says why
	codeMaxStreamBytes      jetstream.ErrorCode = 10122
	codeTooManyRequests     jetstream.ErrorCode = 10167
	codeBatchesInFlight     jetstream.ErrorCode = 10210
	codeReplicasUnsupported jetstream.ErrorCode = 10074
)

// errNoResponders: nobody takes the subject, for now or at all.
var errNoResponders = errors.New("natsjs: nobody answers for the subject")

// storeError says what an answer's error means for the message.
func storeError(err *jetstream.APIError) error {
	kind := events.ErrUnavailable
	switch {
	case err.ErrorCode == codeStoreFailed && strings.Contains(err.Description, "too large"):
		kind = events.ErrRejected
	case err.ErrorCode == codeStoreFailed && strings.Contains(err.Description, "maximum"),
		err.ErrorCode == codeResourcesExceeded, err.ErrorCode == codeInsufficient, err.ErrorCode == codeMemoryExceeded,
		err.ErrorCode == codeStorageExceeded, err.ErrorCode == codeTooManyRequests, err.ErrorCode == codeBatchesInFlight:
		kind = events.ErrBackpressure
	case err.Code >= 400 && err.Code < 500:
		kind = events.ErrRejected
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// sendError says what an error of the client means for the message.
func sendError(err error) error {
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) || errors.Is(err, nats.ErrHeadersNotSupported) {
		return fmt.Errorf("%w: %w", events.ErrRejected, err)
	}
	return fmt.Errorf("%w: %w", events.ErrUnavailable, err)
}

// unavailable marks those errors that pass.
func unavailable(err error) error {
	if err != nil && passing(err) {
		return fmt.Errorf("%w: %w", events.ErrUnavailable, err)
	}
	return err
}

// passing reports whether an error of a question to the server may be gone by itself.
func passing(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.Code >= 500 && api.ErrorCode != codeStorageExceeded && api.ErrorCode != codeInsufficient && api.ErrorCode != codeReplicasUnsupported || api.Code == 429
	}
	return errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionReconnecting) ||
		errors.Is(err, nats.ErrStaleConnection) || errors.Is(err, jetstream.ErrNoHeartbeat)
}
