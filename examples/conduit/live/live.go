package live

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/realtime"
	"github.com/loadlinehq/loadline/realtime/jwtauth"
)

const (
	// Kept for who comes back: longer than a release of all instances takes.
	history    = 100
	historyAge = 5 * time.Minute
	// notices are refetched all together, so that few are enough.
	notices = 20
)

// Config says who may listen, and by what.
type Config struct {
	// Redis is what all instances share, like redis://127.0.0.1:6379. Without it this is the only one.
	Redis string
	// Prefix is before all keys in Redis. Default conduit:realtime.
	Prefix string
	// Secret signs the API's tokens, by which its clients are known; it is required.
	Secret string
	// Session returns the API's token of who has sent a request, by a cookie; "" is nobody. Default: there are no sessions.
	Session func(r *http.Request) (string, error)
	// Keys sign what publications say of the database.
	Keys causal.Keys
	// MaxConnections bounds those of this instance. Default that of package realtime.
	MaxConnections int
	// Drain is how long clients are sent away for, at an even pace. Default that of package realtime.
	Drain time.Duration
	Log   *slog.Logger
}

// Live has the connections of browsers. Its methods may be used before Run is called, and while Redis is away.
type Live struct {
	c       realtime.Config
	log     *slog.Logger
	gateway atomic.Pointer[gateway]
	opened  chan struct{} // closed when the gateway is there
	leaving chan struct{} // closed when clients are to be sent away

	mu      sync.Mutex // of what is in use by While: none is added when leaving is closed
	telling sync.WaitGroup
}

type gateway struct {
	*realtime.Gateway
	handler http.Handler
}

// errAway is the error of what is told while there is no gateway.
var errAway = errors.New("live: the gateway is not there yet")

// New checks the configuration.
func New(c Config) (*Live, error) {
	token, err := jwtauth.New(jwtauth.Config{Secrets: [][]byte{[]byte(c.Secret)}})
	if err != nil {
		return nil, err
	}
	l := &Live{log: c.Log, opened: make(chan struct{}), leaving: make(chan struct{}), c: realtime.Config{
		Prefix: c.Prefix, Keys: c.Keys, MaxConnections: c.MaxConnections, Logger: c.Log,
		Authenticate: identify(c.Session, token), Token: token,
		Address: func(r *http.Request) string { return edge.ClientAddr(r.Context()).String() },
		Namespaces: map[string]realtime.Namespace{
			ofArticles: {Subscribe: existing, History: history, HistoryAge: historyAge},
			ofUsers:    {Subscribe: realtime.Own, History: notices, HistoryAge: historyAge},
		},
		DrainDelay: -1, // the server has waited
		Drain:      c.Drain,
	}}
	if l.c.Prefix == "" {
		l.c.Prefix = "conduit:realtime"
	}
	if c.Redis != "" {
		l.c.Redis = []string{c.Redis}
	}
	return l, l.c.Validate()
}

// identify knows a browser by its session, and others by their tokens. Who has neither may read, as everywhere.
func identify(session func(*http.Request) (string, error), known func(context.Context, string) (realtime.Identity, error)) func(*http.Request) (realtime.Identity, error) {
	return func(r *http.Request) (realtime.Identity, error) {
		if session == nil {
			return realtime.Identity{}, nil
		}
		token, err := session(r)
		if err != nil || token == "" {
			return realtime.Identity{}, err
		}
		who, err := known(r.Context(), token)
		if errors.Is(err, realtime.ErrUnauthenticated) || errors.Is(err, realtime.ErrExpired) {
			return realtime.Identity{}, nil // it ends with its session, and is nobody until there is another
		}
		return who, err
	}
}

// Handler serves browsers. Until the gateway is there, it has them try again.
func (l *Live) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := l.gateway.Load()
		if g == nil {
			edge.WriteProblem(w, &edge.Problem{Status: http.StatusServiceUnavailable, Detail: "what is live is not there yet", After: 2 * time.Second})
			return
		}
		g.handler.ServeHTTP(w, r)
	})
}

// Publish implements fromevents.Publisher. See [Live.While].
func (l *Live) Publish(ctx context.Context, p realtime.Publication) error {
	g := l.gateway.Load()
	if g == nil {
		return errAway
	}
	return g.Publish(ctx, p)
}

// Disconnect ends the connections of a user at all instances: after a logout, when his session is not taken any more. Those of his that are still
// logged in elsewhere come back.
func (l *Live) Disconnect(ctx context.Context, user string) error {
	g := l.gateway.Load()
	if g == nil {
		return errAway
	}
	return g.Disconnect(ctx, "", user)
}

// While runs what publishes here, such as a consumer, from when the gateway is there until its clients are sent away, or ctx is done. What an event
// tells of would wait here before and after, and with it all of its key, while other instances could tell it.
func (l *Live) While(ctx context.Context, run func(context.Context) error) error {
	select {
	case <-l.opened:
	case <-ctx.Done():
		return nil
	}
	if !l.tells() {
		return nil
	}
	defer l.telling.Done()
	ctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-l.leaving:
			stop()
		case <-ctx.Done():
		}
	})
	err := run(ctx)
	stop()
	watching.Wait()
	return err
}

func (l *Live) tells() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.leaving:
		return false
	default:
		l.telling.Add(1)
		return true
	}
}

// Run serves until ctx is done, and then sends clients away, when what [Live.While] runs has ended. Redis is waited for. Run may be called once.
func (l *Live) Run(ctx context.Context) error {
	opened, err := l.open(ctx)
	if opened == nil {
		return err
	}
	l.gateway.Store(&gateway{opened, opened.Handler()})
	close(l.opened)
	<-ctx.Done()
	l.mu.Lock()
	close(l.leaving)
	l.mu.Unlock()
	l.telling.Wait()
	return opened.Run(ctx)
}

// open returns nil when ctx is done before Redis has answered.
func (l *Live) open(ctx context.Context) (*realtime.Gateway, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		g, err := realtime.Open(ctx, l.c)
		if err == nil {
			return g, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		l.log.WarnContext(ctx, "browsers are told nothing; it is tried again", slog.Duration("after", pause), slog.Any("error", fmt.Errorf("live: %w", err)))
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}
