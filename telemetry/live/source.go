package live

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protodelim"
)

// Source is where an instance is looked at. It is compared, as a pointer can be. One that does not end with its context keeps [Page.Close] waiting.
type Source interface {
	// Name is shown for an instance that has not said who it is.
	Name() string
	// Metrics are those of Prometheus.
	Metrics(ctx context.Context) ([]*dto.MetricFamily, error)
	// Traces are the latest, without their spans.
	Traces(ctx context.Context) ([]Trace, error)
	// Trace is one of them. It returns [ErrNoTrace] where it is not.
	Trace(ctx context.Context, id string) (Trace, error)
}

// ErrNoTrace is of a trace that is not kept, or is no longer.
var ErrNoTrace = errors.New("live: there is no such trace any more")

// Local is this process: what telemetry.Telemetry.Gatherer returns, and what a recorder keeps, which may be nil.
func Local(metrics prometheus.Gatherer, traces *Recorder) Source { return &local{metrics, traces} }

type local struct {
	metrics prometheus.Gatherer
	traces  *Recorder
}

func (l *local) Name() string { return "this process" }

func (l *local) Metrics(context.Context) ([]*dto.MetricFamily, error) {
	families, err := l.metrics.Gather()
	if len(families) > 0 { // one that cannot be shown keeps none of the others back
		return families, nil
	}
	return nil, err
}

func (l *local) Traces(context.Context) ([]Trace, error) {
	if l.traces == nil {
		return nil, nil
	}
	return l.traces.Traces(), nil
}

func (l *local) Trace(_ context.Context, id string) (Trace, error) {
	if l.traces != nil {
		if t, ok := l.traces.Trace(id); ok {
			return t, nil
		}
	}
	return Trace{}, ErrNoTrace
}

// Bounds of what another instance may answer.
const (
	maxMetrics = 32 << 20
	maxAnswer  = 4 << 20
)

// Remote is another process, by the URL of its admin port: it serves /metrics there, and, with a [Page], its traces. A user in the URL is
// sent, as the token is, by which its telemetry.AdminConfig knows who may look: http://any:token@10.0.0.7:9464. An empty name is its host's.
func Remote(name, admin string) (Source, error) {
	u, err := url.Parse(admin)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("live: an instance is the URL of its admin port, such as http://127.0.0.1:9464")
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return &remote{name: cmp.Or(name, u.Host), url: u, client: &http.Client{
		Timeout:   10 * time.Second, // whatever the context says
		Transport: &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute},
	}}, nil
}

type remote struct {
	name   string
	url    *url.URL
	client *http.Client
}

func (r *remote) Name() string { return r.name }

func (r *remote) get(ctx context.Context, path, accept string, read func(*http.Response) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url.JoinPath(path).String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", accept)
	response, err := r.client.Do(request)
	if err != nil {
		if inner := new(url.Error); errors.As(err, &inner) {
			err = inner.Err // which names no password
		}
		return fmt.Errorf("%s does not answer: %w", r.url.Host, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return read(response)
	case http.StatusNotFound:
		return errNotServed
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%s answers %s: give its token, as in http://any:token@%s", r.url.Host, response.Status, r.url.Host)
	default:
		return fmt.Errorf("%s answers %s at %s", r.url.Host, response.Status, path)
	}
}

var errNotServed = errors.New("not served")

// protobuf is the format that has native histograms.
const protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=1,text/plain;version=0.0.4;q=0.5"

func (r *remote) Metrics(ctx context.Context) (families []*dto.MetricFamily, err error) {
	err = r.get(ctx, "/metrics", protobuf, func(response *http.Response) error {
		format := expfmt.ResponseFormat(response.Header)
		if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind == "text/html" {
			return fmt.Errorf("%s serves a page at /metrics", r.url.Host)
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, maxMetrics+1))
		if err == nil && len(body) > maxMetrics {
			err = fmt.Errorf("there are more than %d bytes", maxMetrics)
		}
		if err == nil {
			families, err = decoded(body, format)
		}
		if err != nil {
			return fmt.Errorf("%s: /metrics: %w", r.url.Host, err)
		}
		return nil
	})
	if errors.Is(err, errNotServed) {
		err = fmt.Errorf("%s serves no /metrics", r.url.Host)
	}
	return families, err
}

func decoded(body []byte, format expfmt.Format) (families []*dto.MetricFamily, err error) {
	in := bytes.NewReader(body)
	decode := expfmt.NewDecoder(in, format).Decode
	if format.FormatType() == expfmt.TypeProtoDelim {
		// expfmt makes room for as much as the message says it has.
		limited := protodelim.UnmarshalOptions{MaxSize: int64(len(body))}
		decode = func(family *dto.MetricFamily) error { return limited.UnmarshalFrom(in, family) }
	}
	for {
		family := new(dto.MetricFamily)
		if err := decode(family); errors.Is(err, io.EOF) {
			return families, nil
		} else if err != nil {
			return nil, err
		}
		families = append(families, family)
	}
}

// CloseIdleConnections is for [Page.Close].
func (r *remote) CloseIdleConnections() { r.client.CloseIdleConnections() }

func (r *remote) Traces(ctx context.Context) (traces []Trace, err error) {
	err = r.get(ctx, Path+"/traces", "application/json", func(response *http.Response) error {
		return json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&traces)
	})
	if errors.Is(err, errNotServed) { // it has metrics alone
		err = nil
	}
	return traces, err
}

func (r *remote) Trace(ctx context.Context, id string) (t Trace, err error) {
	err = r.get(ctx, Path+"/traces/"+url.PathEscape(id), "application/json", func(response *http.Response) error {
		return json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&t)
	})
	if errors.Is(err, errNotServed) {
		err = ErrNoTrace
	}
	return t, err
}
