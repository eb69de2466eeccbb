package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The causes of failures in reports are few words, never the text of an error, which
// may hold addresses and identifiers.
const (
	failureTimeout = "time-out"
	failureCut     = "cut off by the end of the run"
)

func classify(ctx context.Context, err error) string {
	cause := context.Cause(ctx)
	switch {
	case err == nil:
		return ""
	case errors.Is(cause, errCut):
		return failureCut
	case errors.Is(cause, errTimeout), errors.Is(err, errTimeout):
		return failureTimeout
	case errors.Is(err, ErrRemote):
		return "refused: remote host"
	case errors.Is(err, errTooLong):
		return "answer too long"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	}
	return "other"
}

// newTransport is apart from every other one in the process, and without what would
// surprise in a measurement: proxies from the environment, compression behind the
// journey's back, HTTP/2 with its single connection, more or fewer connections kept
// than used.
func newTransport(cfg Config) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Protocols:           protocols,
		DialContext:         guardedDial(cfg),
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true,
		MaxConnsPerHost:     cfg.MaxConns,
		MaxIdleConnsPerHost: cfg.MaxConns,
		IdleConnTimeout:     90 * time.Second, // as in http.DefaultTransport
	}
}

// guardedDial refuses what is neither loopback nor allowed. It looks at the address
// that is dialled, so that no name, redirect or journey gets around it.
func guardedDial(cfg Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		dialer := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
		if !cfg.allowed(host) {
			dialer.Control = func(_, address string, _ syscall.RawConn) error {
				ip, _, err := net.SplitHostPort(address)
				if err != nil {
					return err
				}
				ip, _, _ = strings.Cut(ip, "%") // the zone of an IPv6 address
				if parsed := net.ParseIP(ip); parsed == nil || !parsed.IsLoopback() {
					return fmt.Errorf("%s: %w", host, ErrRemote)
				}
				return nil
			}
		}
		return dialer.DialContext(ctx, network, addr)
	}
}

// warmTimeout bounds the opening of connections. A guess.
const warmTimeout = 5 * time.Second

// warm opens connections by requests that hold theirs until all have one. It fails
// when the target does not answer at all.
func warm(ctx context.Context, cfg Config, transport http.RoundTripper) error {
	if cfg.Target == "" || cfg.WarmConns <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	var (
		holding, done sync.WaitGroup
		mu            sync.Mutex
		answered      int
		failure       error
	)
	all := make(chan struct{})
	holding.Add(cfg.WarmConns)
	for range cfg.WarmConns {
		done.Go(func() {
			var once sync.Once
			here := func() { once.Do(holding.Done) }
			defer here() // also where there was no connection
			traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
				here()
				select {
				case <-all:
				case <-ctx.Done():
				}
			}})
			err := head(traced, strings.TrimSuffix(cfg.Target, "/")+cfg.WarmPath, transport)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				answered++
			} else if failure == nil {
				failure = err
			}
		})
	}
	holding.Wait()
	close(all)
	done.Wait()
	if answered == 0 {
		return fmt.Errorf("load: the target does not answer: %w", failure)
	}
	return nil
}

func head(ctx context.Context, url string, transport http.RoundTripper) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
