package telemetry

import (
	"maps"
	"net"
	"net/http"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Bounds of what is remembered, for a Route that has more values than it should.
const (
	maxEndpoints = 2000
	maxOutcomes  = 100 // of an endpoint
)

// endpoints remembers what is always the same of a method and a route. What is read does not change; who adds to it copies it.
type endpoints struct {
	known  atomic.Pointer[map[endpointKey]*endpoint]
	adding sync.Mutex
}

type endpointKey struct{ method, route string }

func newEndpoints() *endpoints {
	e := new(endpoints)
	e.known.Store(new(map[endpointKey]*endpoint))
	return e
}

func (e *endpoints) of(method, route string) *endpoint {
	name, method := method, standardMethod(method)
	if method == "" {
		method, name = other, "HTTP"
	}
	key := endpointKey{method, route}
	if found := (*e.known.Load())[key]; found != nil {
		return found
	}
	made := newEndpoint(name, method, route)
	e.adding.Lock()
	defer e.adding.Unlock()
	known := *e.known.Load()
	if found := known[key]; found != nil || len(known) >= maxEndpoints {
		if found == nil {
			found = made
		}
		return found
	}
	more := maps.Clone(known)
	if more == nil {
		more = make(map[endpointKey]*endpoint)
	}
	more[key] = made
	e.known.Store(&more)
	return made
}

const other = "_OTHER"

// standardMethod returns "" for a client's own word.
func standardMethod(method string) string {
	switch method {
	case "":
		return http.MethodGet // as net/http has it
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return ""
}

// endpoint is a method and a route.
type endpoint struct {
	name, method, route string
	labels              pprof.LabelSet
	known               atomic.Pointer[map[outcomeKey]outcome]
	adding              sync.Mutex
}

type outcomeKey struct {
	status       int
	encrypted    bool
	major, minor int
}

func newEndpoint(name, method, route string) *endpoint {
	e := &endpoint{name: name, method: method, route: route, labels: pprof.Labels("route", route)}
	if route != "" {
		e.name += " " + route
	}
	e.known.Store(new(map[outcomeKey]outcome))
	return e
}

func (e *endpoint) routeAttribute() attribute.KeyValue { return semconv.HTTPRoute(e.route) }

// attributes are those of a span at its begin. The client's address is not among them: here it is not known yet which proxies to believe.
func (e *endpoint) attributes(r *http.Request) []attribute.KeyValue {
	a := make([]attribute.KeyValue, 0, 12)
	a = append(a, semconv.HTTPRequestMethodKey.String(e.method), semconv.URLPath(r.URL.Path), scheme(r.TLS != nil))
	if e.route != "" {
		a = append(a, e.routeAttribute())
	}
	if e.method == other {
		a = append(a, semconv.HTTPRequestMethodOriginal(r.Method))
	}
	if host, port := split(r.Host); host != "" {
		a = append(a, semconv.ServerAddress(host))
		if port > 0 {
			a = append(a, semconv.ServerPort(port))
		}
	}
	if host, port := split(r.RemoteAddr); host != "" {
		a = append(a, semconv.NetworkPeerAddress(host))
		if port > 0 {
			a = append(a, semconv.NetworkPeerPort(port))
		}
	}
	if agent := r.UserAgent(); agent != "" {
		a = append(a, semconv.UserAgentOriginal(agent))
	}
	return append(a, version(r.ProtoMajor, r.ProtoMinor))
}

// outcome is how a request may end, and what says so.
type outcome struct {
	span   []attribute.KeyValue
	series []metric.RecordOption
}

// outcome has few attributes of the series, and none that a client may choose.
func (e *endpoint) outcome(r *http.Request, status int) outcome {
	key := outcomeKey{status, r.TLS != nil, r.ProtoMajor, r.ProtoMinor}
	if found, ok := (*e.known.Load())[key]; ok {
		return found
	}
	made := outcome{span: []attribute.KeyValue{semconv.HTTPResponseStatusCode(status)}}
	if status >= http.StatusInternalServerError {
		made.span = append(made.span, semconv.ErrorTypeKey.String(strconv.Itoa(status)))
	}
	a := append(slices.Clone(made.span), semconv.HTTPRequestMethodKey.String(e.method), scheme(key.encrypted), version(key.major, key.minor))
	if e.route != "" {
		a = append(a, e.routeAttribute())
	}
	made.series = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(a...))}
	e.adding.Lock()
	defer e.adding.Unlock()
	if known := *e.known.Load(); len(known) < maxOutcomes {
		more := map[outcomeKey]outcome{key: made}
		maps.Copy(more, known)
		e.known.Store(&more)
	}
	return made
}

func scheme(encrypted bool) attribute.KeyValue {
	if encrypted {
		return semconv.URLScheme("https")
	}
	return semconv.URLScheme("http")
}

// version is as the conventions write it.
func version(major, minor int) attribute.KeyValue {
	switch {
	case major == 1 && minor == 1:
		return semconv.NetworkProtocolVersion("1.1")
	case major >= 2 && minor == 0:
		return semconv.NetworkProtocolVersion(strconv.Itoa(major))
	}
	return semconv.NetworkProtocolVersion(strconv.Itoa(major) + "." + strconv.Itoa(minor))
}

// split returns 0 where there is no port.
func split(address string) (host string, port int) {
	if i := strings.LastIndexByte(address, ':'); i < 0 || address[len(address)-1] == ']' {
		return strings.Trim(address, "[]"), 0
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0
	}
	port, _ = strconv.Atoi(text)
	return host, port
}
