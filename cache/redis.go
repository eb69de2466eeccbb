package cache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

var (
	// errAway: Redis does not answer, or not in time.
	errAway = errors.New("cache: Redis is away")
	// errClosed: the epoch is gone, or what answers is another server than before.
	errClosed = errors.New("cache: the epoch has ended")
)

// redis is the connection to a Redis server, and what is asked of it. All goes over one connection,
// so that what is heard on it and what is answered have one order, and come from one server.
type redis struct {
	option rueidis.ClientOption

	connecting sync.Mutex
	client     rueidis.Client // nil until connect has returned without an error
	closed     bool

	prefix  string
	timeout time.Duration // of one exchange
	scripts scripts
	// dials counts connections: an answer counts only while there was none since its server was
	// looked at.
	dials atomic.Uint64
	// connections counts those that are there, or being made. While a Sentinel leads to another server, the one
	// before answers until the new one has said that it is a primary.
	connections atomic.Int64
	sentinels   bool
	// missed counts exchanges in sequence that have failed.
	missed atomic.Int64
}

func newRedis(option rueidis.ClientOption, prefix string, timeout time.Duration) *redis {
	r := &redis{prefix: prefix, timeout: timeout, scripts: newScripts()}
	dial := option.DialCtxFn
	if dial == nil {
		dial = func(ctx context.Context, dst string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			if config != nil {
				return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", dst)
			}
			network := "tcp"
			if strings.HasPrefix(dst, "/") {
				network = "unix"
			}
			return dialer.DialContext(ctx, network, dst)
		}
	}
	var sentinels []string // these answer nothing that counts
	if option.Sentinel.MasterSet != "" {
		sentinels = option.InitAddress
	}
	r.sentinels = sentinels != nil
	option.DialCtxFn = func(ctx context.Context, dst string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		if slices.Contains(sentinels, dst) {
			return dial(ctx, dst, dialer, config)
		}
		r.connections.Add(1)
		r.dials.Add(1)
		conn, err := dial(ctx, dst, dialer, config)
		if err != nil {
			r.connections.Add(-1)
			return nil, err
		}
		return &openConn{Conn: conn, open: &r.connections}, nil
	}
	option.PipelineMultiplex = -1 // one connection
	option.DisableCache = true
	option.DisableRetry = true // on another connection
	option.BlockingPipeline = -1
	option.DisableAutoPipelining, option.AlwaysPipelining, option.AlwaysRESP2 = false, false, false
	option.ConnLifetime, option.ReplicaOnly, option.SendToReplicas, option.ReadNodeSelector = 0, false, nil, nil
	option.ForceSingleClient = option.Sentinel.MasterSet == ""
	if option.Dialer.Timeout == 0 {
		option.Dialer.Timeout = time.Second
	}
	if option.ConnWriteTimeout == 0 {
		option.ConnWriteTimeout = time.Second // rueidis's 10 s is long for a cache
	}
	r.option = option
	return r
}

// openConn is a connection while it is open.
type openConn struct {
	net.Conn
	closed atomic.Bool
	open   *atomic.Int64
}

func (c *openConn) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return err
}

// connect makes the client. One of a single server is there though that is away; one of Sentinels is not.
func (r *redis) connect() error {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	switch {
	case r.closed:
		return errors.New("cache: the store is closed")
	case r.client != nil:
		return nil
	}
	client, err := rueidis.NewClient(r.option)
	if client == nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	r.client = client
	return nil
}

func (r *redis) close() {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	r.closed = true
	if r.client != nil {
		r.client.Close()
	}
}

func (r *redis) space(epoch uint64) string {
	return r.prefix + strconv.FormatUint(epoch, 36) + ":"
}

func (r *redis) openKey(replid string) string { return r.prefix + "open:" + replid }

func metaKey(space string) string { return space + "meta" }
func tagsKey(space string) string { return space + "tags" }
func channel(space string) string { return space + "inv" }
func recordKey(space, key string) string {
	return space + "r:" + key
}

// exchange runs f within the time that one exchange has, on the view's connection and no other.
func (r *redis) exchange(ctx context.Context, dials uint64, f func(ctx context.Context) error) error {
	return r.counted(r.within(ctx, r.timeout, dials, f))
}

// bulk is an exchange of much: that it takes long says little of Redis.
func (r *redis) bulk(ctx context.Context, dials uint64, f func(ctx context.Context) error) error {
	return r.within(ctx, r.timeout, dials, f)
}

// patient is exchange for who nobody waits for.
func (r *redis) patient(ctx context.Context, dials uint64, f func(ctx context.Context) error) error {
	return r.counted(r.within(ctx, max(r.timeout, patience), dials, f))
}

// patience is how long what goes on in the background waits for Redis.
const patience = time.Second

// errGone: not Redis was away, but who has asked.
var errGone = fmt.Errorf("%w, or was not waited for", errAway)

func (r *redis) within(ctx context.Context, limit time.Duration, dials uint64, f func(ctx context.Context) error) error {
	if r.dials.Load() != dials {
		return errClosed
	}
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(within)
	switch {
	case r.dials.Load() != dials:
		return errClosed
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errGone, context.Cause(ctx))
	case err == nil, errors.Is(err, errClosed):
		return err
	}
	return fmt.Errorf("%w: %w", errAway, err)
}

// counted counts exchanges in sequence that have failed.
func (r *redis) counted(err error) error {
	switch {
	case errors.Is(err, errGone):
	case errors.Is(err, errAway):
		r.missed.Add(1)
	default:
		r.missed.Store(0)
	}
	return err
}
