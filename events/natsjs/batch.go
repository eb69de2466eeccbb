package natsjs

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/loadlinehq/loadline/events"
)

// maxBatch is the server's.
const maxBatch = 1000

// publishBatch stores all messages or none, and reports which (ADR-50 of NATS: the headers
// Nats-Batch-Id, -Sequence and -Commit). None is stored when one is refused, such as a
// duplicate: the caller then publishes them one by one.
func (d *Driver) publishBatch(ctx context.Context, messages []events.Raw) bool {
	if len(messages) > maxBatch {
		return false
	}
	id, err := uuid.NewV7()
	if err != nil {
		return false
	}
	for i := range messages {
		m := d.message(&messages[i])
		m.Header.Set(jetstream.MsgIDHeader, messages[i].ID)
		m.Header.Set("Nats-Batch-Id", id.String())
		m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		if i < len(messages)-1 {
			if err := d.conn.PublishMsg(m); err != nil {
				return false
			}
			continue
		}
		m.Header.Set("Nats-Batch-Commit", "1")
		answer, err := d.conn.RequestMsgWithContext(ctx, m)
		if err != nil {
			return false
		}
		return stored(answer)
	}
	return false
}

func stored(answer *nats.Msg) bool {
	var ack struct {
		Error *jetstream.APIError `json:"error"`
		Seq   uint64              `json:"seq"`
	}
	return json.Unmarshal(answer.Data, &ack) == nil && ack.Error == nil && ack.Seq > 0
}
