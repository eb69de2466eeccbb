package eventstest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/events"
)

// cloudEvent is one as the specification has it, read by nothing of ours: CloudEvents
// 1.0.2 and its NATS protocol binding, binary mode.
type cloudEvent struct {
	attributes map[string]string
	data       []byte
}

func readCloudEvent(header map[string]string, body []byte) (cloudEvent, error) {
	e := cloudEvent{attributes: make(map[string]string), data: body}
	for name, value := range header {
		if strings.EqualFold(name, "content-type") && strings.HasPrefix(value, "application/cloudevents") {
			return e, fmt.Errorf("the content-type %s says that it is in structured mode", value)
		}
		attribute, is := strings.CutPrefix(strings.ToLower(name), "ce-")
		if !is {
			continue
		}
		for _, c := range attribute { // section 3: naming conventions
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9') {
				return e, fmt.Errorf("the attribute's name %q is not of lower case letters and digits", attribute)
			}
		}
		decoded, err := url.PathUnescape(value)
		if err != nil {
			return e, fmt.Errorf("%s: %w", attribute, err)
		}
		e.attributes[attribute] = decoded
	}
	for _, required := range []string{"id", "source", "specversion", "type"} {
		if e.attributes[required] == "" {
			return e, fmt.Errorf("the required attribute %s is missing", required)
		}
	}
	if v := e.attributes["specversion"]; v != "1.0" {
		return e, fmt.Errorf("specversion is %s", v)
	}
	if _, err := url.Parse(e.attributes["source"]); err != nil {
		return e, err
	}
	if text, is := e.attributes["time"]; is {
		if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
			return e, err
		}
	}
	if t := e.attributes["datacontenttype"]; t == "application/json" && !json.Valid(body) {
		return e, fmt.Errorf("the data is not of the type %s", t)
	}
	return e, nil
}

func testCloudEvents(t *testing.T, b Broker) {
	typ := events.Define("cloud.event", events.V1, events.KeyedBy(func(p thing) string { return p.Name }))
	m := message(t, typ, thing{"schlüssel 100 %", 1}, events.KeyVersion(3))
	m.Tenant = "acme"
	sent := encode(t, m)
	publish(t, b.Driver, sent...)
	got := make(chan events.Raw, 1)
	begin(t, b.Driver, subscription("cloud", 1, events.Filter{Type: "cloud.event", Partition: sent[0].Partition}), func(d events.Delivery) {
		got <- d.Raw()
		_ = d.Ack(context.Background())
	})
	raw := <-got
	e, err := readCloudEvent(raw.Header, raw.Body)
	if err != nil {
		t.Fatal(err)
	}
	for attribute, want := range map[string]string{
		"id": m.ID, "source": "/eventstest", "type": "cloud.event", "subject": m.Key, "partitionkey": m.Key, "tenant": "acme", "datacontenttype": "application/json",
		"time": m.Time.UTC().Format(time.RFC3339Nano),
	} {
		if e.attributes[attribute] != want {
			t.Errorf("%s is %q, want %q", attribute, e.attributes[attribute], want)
		}
	}
	var body struct {
		Type, IdempotencyKey, Version string
		Payload                       thing
	}
	if err := json.Unmarshal(e.data, &body); err != nil || body.Type != "cloud.event" || body.Payload.N != 1 || body.Version != "v1" {
		t.Errorf("the data is %s: %v", e.data, err)
	}
}
