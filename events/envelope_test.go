package events_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/tenancy"
)

type published struct {
	Slug   string `json:"slug"`
	Author string `json:"author"`
}

var articlePublished = events.Define("article.published", events.V1, events.KeyedBy(func(p published) string { return p.Author }))

func message(t testing.TB, p published, options ...events.MessageOption) events.Message {
	t.Helper()
	m, err := articlePublished.New(p, options...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The format is written down here: readers in other languages go by it.
func TestFormat(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 10, 30, 0, 123456000, time.UTC)
	m := message(t, published{"s", "änn %"}, events.At(at), events.KeyVersion(7), events.IdempotencyKey("article-1 published"))
	m.ID = "01938a5e-7f1c-7000-8000-000000000001"
	m.Tenant = "acme"
	m.Token = causal.NewToken(causal.Mark{System: 7, Timeline: 1, LSN: 5})
	m.TraceParent, m.TraceState = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=1"
	raw, err := events.Encode(&m, "/conduit")
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"type":"article.published","payload":{"slug":"s","author":"änn %"},"idempotencyKey":"article-1 published","timestamp":"2026-11-24T10:30:00.123456Z","version":"v1"}`
	if string(raw.Body) != body {
		t.Errorf("body %s\nwant %s", raw.Body, body)
	}
	token, _ := m.Token.MarshalText()
	want := map[string]string{
		"ce-specversion": "1.0", "ce-id": m.ID, "ce-source": "/conduit", "ce-type": "article.published", "ce-time": "2026-11-24T10:30:00.123456Z",
		"ce-subject": "%C3%A4nn%20%25", "ce-partitionkey": "%C3%A4nn%20%25", "ce-datacontenttype": "application/json",
		"ce-dataschema": "urn:event:article.published:v1", "ce-tenant": "acme", "ce-keyversion": "7",
		"Idempotency-Key": "article-1%20published", "Causal-Token": string(token), "traceparent": m.TraceParent, "tracestate": m.TraceState,
	}
	if !reflect.DeepEqual(raw.Header, want) {
		t.Errorf("header %v\nwant   %v", raw.Header, want)
	}
	if raw.ID != m.ID || raw.Type != m.Type || raw.Partition != events.Partition("änn %") {
		t.Errorf("%+v", raw)
	}
	back, err := events.Decode(raw)
	if err != nil || !same(back, m) {
		t.Errorf("%+v, %v\nwant %+v", back, err, m)
	}
}

func same(a, b events.Message) bool {
	tokens := a.Token.Equal(b.Token)
	a.Token, b.Token = causal.Token{}, causal.Token{}
	return tokens && reflect.DeepEqual(a, b)
}

// Who writes the body alone, by hand, is understood.
func TestPlainBody(t *testing.T) {
	t.Parallel()
	body := `{"type":"article.published","payload":{},"idempotencyKey":"k1","timestamp":"2026-11-24T10:30:00Z","version":"v1"}`
	m, err := events.Decode(events.Raw{Type: "article.published", Partition: -1, Body: []byte(body)})
	if err != nil || m.ID != "k1" || m.IdempotencyKey != "k1" || m.Key != "" || !m.Token.IsZero() {
		t.Errorf("%+v, %v", m, err)
	}
	// Header names come back in other letters, from some brokers.
	m, err = events.Decode(events.Raw{Body: []byte(body), Header: map[string]string{"Ce-Id": "i1", "Ce-Partitionkey": "a%20b", "causal-token": "no token"}})
	if err != nil || m.ID != "i1" || m.Key != "a b" || !m.Token.Incomplete() {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestUndecodable(t *testing.T) {
	t.Parallel()
	good := `{"type":"a","payload":{},"idempotencyKey":"k","timestamp":"2026-11-24T10:30:00Z","version":"v1"}`
	for name, raw := range map[string]events.Raw{
		"no body":         {},
		"no JSON":         {Body: []byte("{")},
		"no object":       {Body: []byte("[]")},
		"no type":         {Body: []byte(strings.Replace(good, `"a"`, `""`, 1))},
		"no time":         {Body: []byte(strings.Replace(good, `"timestamp":"2026-11-24T10:30:00Z",`, "", 1))},
		"no payload":      {Body: []byte(strings.Replace(good, `"payload":{},`, "", 1))},
		"no id":           {Body: []byte(strings.Replace(good, `"k"`, `""`, 1))},
		"bad version":     {Body: []byte(strings.Replace(good, `"v1"`, `"V 1"`, 1))},
		"another type":    {Type: "b", Body: []byte(good)},
		"another header":  {Body: []byte(good), Header: map[string]string{"ce-type": "b"}},
		"another spec":    {Body: []byte(good), Header: map[string]string{"ce-specversion": "0.3"}},
		"bad tenant":      {Body: []byte(good), Header: map[string]string{"ce-tenant": "a b"}},
		"bad key version": {Body: []byte(good), Header: map[string]string{"ce-keyversion": "x"}},
	} {
		if _, err := events.Decode(raw); !errors.Is(err, events.ErrMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	m := message(f, published{"s", "ann"})
	raw, err := events.Encode(&m, "/")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw.Body, m.ID, "ann", "1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add([]byte("{}"), "", "%", "-1", "%%41")
	f.Fuzz(func(t *testing.T, body []byte, id, key, version, parent string) {
		m, err := events.Decode(events.Raw{Body: body, Header: map[string]string{"ce-id": id, "ce-partitionkey": key, "ce-keyversion": version, "traceparent": parent}})
		if err != nil {
			return
		}
		raw, err := events.Encode(&m, "/")
		if err != nil {
			t.Fatalf("decoded and cannot be encoded: %+v: %v", m, err)
		}
		again, err := events.Decode(raw)
		if err != nil || again.ID != m.ID || again.Key != m.Key || again.KeyVersion != m.KeyVersion || !again.Time.Equal(m.Time) || again.TraceParent != m.TraceParent {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

func TestMessages(t *testing.T) {
	t.Parallel()
	if _, err := articlePublished.New(published{}); !errors.Is(err, events.ErrMessage) || !strings.Contains(err.Error(), "no key") {
		t.Errorf("without a key: %v", err)
	}
	big := events.Define[string]("big", events.V1)
	if _, err := big.New(strings.Repeat("x", events.MaxPayload)); !errors.Is(err, events.ErrMessage) {
		t.Errorf("too large: %v", err)
	}
	channel := events.Define[chan int]("channel", events.V1)
	if _, err := channel.New(make(chan int)); err == nil {
		t.Error("a channel has JSON")
	}
	for _, name := range []string{"", "A", "a b", ".a", "a.", "a..b", "a>", "a*", "a/b", strings.Repeat("x", 129)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is a type's name", name)
				}
			}()
			events.Define[int](name, events.V1)
		}()
	}
	a, b := message(t, published{"s", "ann"}), message(t, published{"s", "ann"})
	if a.ID == b.ID || a.IdempotencyKey != a.ID || a.Key != "ann" || a.ID > b.ID {
		t.Errorf("%+v, %+v", a, b)
	}
}

func TestFromContext(t *testing.T) {
	t.Parallel()
	ctx, err := tenancy.With(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	mark := causal.Mark{System: 7, Timeline: 1, LSN: 5}
	ctx = causal.WithSession(ctx, causal.NewSession(causal.NewToken(mark)))
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	ctx = trace.ContextWithSpanContext(ctx, span)
	m := message(t, published{"s", "ann"}).From(ctx)
	if m.Tenant != "acme" || !m.Token.Equal(causal.NewToken(mark)) || m.TraceParent != fmt.Sprintf("00-%s-%s-01", span.TraceID(), span.SpanID()) {
		t.Errorf("%+v", m)
	}
	m.Tenant = "other"
	if again := m.From(ctx); again.Tenant != "other" {
		t.Errorf("the context has changed what the writer said: %+v", again)
	}
}

// Partitions are part of the format.
func TestPartition(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int{"": -1, "a": 12, "ann": 8, "user:42": 2, "änn": 14} {
		if got := events.Partition(key); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
	seen := make(map[int]int)
	for i := range 16_000 {
		seen[events.Partition(fmt.Sprint("user:", i))]++
	}
	for p, n := range seen {
		if n < 700 || n > 1300 {
			t.Errorf("partition %d has %d of 16,000 keys", p, n)
		}
	}
}

type publishedV2 struct {
	Slug    string   `json:"slug"`
	Authors []string `json:"authors"`
}

type publishedV3 struct {
	Address string   `json:"address"`
	Authors []string `json:"authors"`
}

var (
	plainV1 = events.Define[published]("plain.published", events.V1)
	plainV2 = events.Define("plain.published", "v2", events.Upcast(plainV1, func(p published) publishedV2 { return publishedV2{p.Slug, []string{p.Author}} }))
	plainV3 = events.Define("plain.published", "v3", events.Upcast(plainV2, func(p publishedV2) publishedV3 { return publishedV3{"/" + p.Slug, p.Authors} }))
)

func TestUpcastOfAnotherType(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("an article became a comment")
		}
	}()
	events.Define("comment.written", "v2", events.Upcast(plainV1, func(p published) json.RawMessage { return nil }))
}
