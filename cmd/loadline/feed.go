package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/realtime"
	"github.com/loadlinehq/loadline/realtime/fromevents"
)

// feed is events of a type, and the channels that are told of them.
type feed struct {
	event, version  string
	namespace, name string // of the channel; the name has fields of the payload in braces
}

var fieldInBraces = regexp.MustCompile(`\{([^{}]*)\}`)

// parseFeed understands comment.posted@v2=article:{slug}.
func parseFeed(text string) (f feed, err error) {
	event, channel, ok1 := strings.Cut(text, "=")
	namespace, name, ok2 := strings.Cut(channel, ":")
	if !ok1 || !ok2 || event == "" || namespace == "" || name == "" {
		return f, fmt.Errorf("%q is not like comment.posted=article:{slug}", text)
	}
	f = feed{event: event, version: "v1", namespace: namespace, name: name}
	if before, after, found := strings.Cut(event, "@"); found {
		f.event, f.version = before, after
	}
	if rest := fieldInBraces.ReplaceAllString(name, ""); strings.ContainsAny(rest, "{}") || strings.Contains(name, "{}") {
		return f, fmt.Errorf("%q: what is in braces is a field of the payload, as in {slug}", text)
	}
	return f, nil
}

// handle registers the feed. A type with keys is handled in their order; one without is handled all the same.
func (f feed) handle(consumer *events.Consumer, gateway *realtime.Gateway) {
	t := events.Define(f.event, f.version, events.KeyedBy(func(json.RawMessage) string { return "" }))
	fromevents.Handle(consumer, gateway, t, func(ctx context.Context, e events.Event[json.RawMessage]) ([]realtime.Publication, error) {
		name, err := f.fill(e.Payload)
		if err != nil {
			return nil, events.Permanent(err)
		}
		return []realtime.Publication{{Channel: realtime.ChannelOf(ctx, f.namespace, name), Data: e.Payload}}, nil
	})
}

// fill puts the payload's fields into the name.
func (f feed) fill(payload json.RawMessage) (string, error) {
	if !strings.Contains(f.name, "{") {
		return f.name, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(payload, &fields); err != nil {
		return "", fmt.Errorf("the payload of a %s is no object: %w", f.event, err)
	}
	var wrong error
	name := fieldInBraces.ReplaceAllStringFunc(f.name, func(braces string) string {
		field := braces[1 : len(braces)-1]
		var value any
		if err := json.Unmarshal(fields[field], &value); err != nil {
			wrong = fmt.Errorf("the payload of a %s has no field %s", f.event, field)
			return ""
		}
		switch text := value.(type) {
		case string:
			return text
		case float64:
			return string(fields[field]) // as it is written: 12345678901234567890
		}
		wrong = fmt.Errorf("field %s of a %s is neither text nor a number", field, f.event)
		return ""
	})
	return name, wrong
}

var permissions = map[string]realtime.Permission{"anyone": realtime.Anyone, "known": realtime.Known, "own": realtime.Own}

// parseNamespace understands article=anyone,history=100/5m,presence.
func parseNamespace(text string) (name string, n realtime.Namespace, err error) {
	name, rest, ok := strings.Cut(text, "=")
	parts := strings.Split(rest, ",")
	who, known := permissions[parts[0]]
	if !ok || name == "" || !known {
		return name, n, fmt.Errorf("%q is not like article=anyone,history=100/5m: who may listen is anyone, known or own", text)
	}
	n.Subscribe = who
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "state":
			n.State = true
		case "presence":
			n.Presence = true
		case "publish":
			if n.Publish, known = permissions[value]; !known {
				return name, n, fmt.Errorf("%q: who may publish is anyone, known or own", text)
			}
		case "history":
			count, age, _ := strings.Cut(value, "/")
			var err1, err2 error
			n.History, err1 = strconv.Atoi(count)
			n.HistoryAge, err2 = time.ParseDuration(age)
			if err := errors.Join(err1, err2); err != nil {
				return name, n, fmt.Errorf("%q: history is like history=100/5m, a number of publications and their age", text)
			}
		default:
			return name, n, fmt.Errorf("%q: %q is none of history, state, presence, publish", text, part)
		}
	}
	return name, n, nil
}
