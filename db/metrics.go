package db

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"
)

// reason is why a call has come to a server.
type reason uint8

const (
	caughtUp  reason = iota // a replica that has what the session has seen
	waited                  // the same, after a wait
	asked                   // for the primary, by Strong
	noSession               // in the context
	notKnown                // what the session has seen
	tooNew                  // the primary has not been asked since what MaxStaleness allows
	noReplica               // there is none, or nobody watches them
	fallback                // no replica has come so far
	writes
	reasons
)

var reasonNames = [reasons]string{
	"caught_up", "waited", "strong", "no_session", "unknown_session", "too_new", "no_replica", "fallback", "write",
}

const scope = "github.com/loadlinehq/loadline/db"

// boundaries are those that the semantic conventions have for durations in seconds, from 1 ms on; the SDK's
// own are for milliseconds. Views of the application may replace them.
var boundaries = []float64{.001, .0025, .005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 10, 30, 60, 300}

// observe registers the metrics. Those of connections have the names of OpenTelemetry's
// semantic conventions, with the server's host:port as the pool's name:
//
//	db.client.connection.count{state}       open connections, idle and used
//	db.client.connection.max                as the server's role allows
//	db.client.connection.pending_requests   callers in the queue
//	db.client.connection.timeouts           callers that have waited in vain
//	db.client.connection.wait_time          of callers that had to wait
//	loadline.db.connection.occupied         seconds for which connections were in use, all together: what
//	                                        it gains in a second, of max, is the pool's utilisation
//	loadline.db.server.up{server, role}     1 if the server has answered the last poll
//	loadline.db.choices{server, reason}     why calls have come to a server
//	loadline.db.replica.lag{server}         how long ago the primary was where the replica is
//	loadline.db.lost_writes                 see Config.LostWrite
func (r *Router) observe() error {
	meter := r.config.MeterProvider.Meter(scope)
	count, err1 := dbconv.NewClientConnectionCountObservable(meter)
	most, err2 := dbconv.NewClientConnectionMaxObservable(meter)
	pending, err3 := dbconv.NewClientConnectionPendingRequestsObservable(meter)
	timeouts, err4 := dbconv.NewClientConnectionTimeoutsObservable(meter)
	wait, err5 := dbconv.NewClientConnectionWaitTime(meter, metric.WithExplicitBucketBoundaries(boundaries...))
	choices, err6 := meter.Int64ObservableCounter("loadline.db.choices", metric.WithUnit("{call}"), metric.WithDescription("Why calls have come to a server."))
	lag, err7 := meter.Float64ObservableGauge("loadline.db.replica.lag", metric.WithUnit("s"), metric.WithDescription("How long ago the primary was where the replica is."))
	lost, err8 := meter.Int64ObservableCounter("loadline.db.lost_writes", metric.WithUnit("{write}"), metric.WithDescription("Acknowledged writes that failovers have lost."))
	occupied, err9 := meter.Float64ObservableCounter("loadline.db.connection.occupied", metric.WithUnit("s"), metric.WithDescription("For how long connections were in use, all together."))
	up, err10 := meter.Int64ObservableGauge("loadline.db.server.up", metric.WithDescription("1 if the server has answered the last poll."))
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10); err != nil {
		return err
	}
	type set struct {
		pool, idle, used, server metric.MeasurementOption
		primary, replica         metric.MeasurementOption
		choices                  [reasons]metric.MeasurementOption
	}
	sets := make([]set, len(r.nodes))
	for i, n := range r.nodes {
		pool, server := semconv.DBClientConnectionPoolName(n.name), attribute.String("server", n.name)
		sets[i] = set{
			pool: metric.WithAttributes(pool), server: metric.WithAttributes(server),
			idle:    metric.WithAttributes(pool, semconv.DBClientConnectionStateIdle),
			used:    metric.WithAttributes(pool, semconv.DBClientConnectionStateUsed),
			primary: metric.WithAttributes(server, attribute.String("role", "primary")),
			replica: metric.WithAttributes(server, attribute.String("role", "replica")),
		}
		for why := range reasons {
			sets[i].choices[why] = metric.WithAttributes(server, attribute.String("reason", reasonNames[why]))
		}
		n.gate.waited = func(d time.Duration) { wait.Record(context.Background(), d.Seconds(), n.name) }
	}
	var err error
	r.metrics, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		c := r.cluster.Load()
		for i, n := range r.nodes {
			stat := n.pool.Stat()
			o.ObserveInt64(count.Inst(), int64(stat.IdleConns()), sets[i].idle)
			o.ObserveInt64(count.Inst(), int64(stat.AcquiredConns()), sets[i].used)
			n.gate.mu.Lock()
			n.gate.use(0)
			limit, waiting, late, used := n.gate.limit, n.gate.waiting, n.gate.timeouts, n.gate.occupied
			n.gate.mu.Unlock()
			o.ObserveFloat64(occupied, used.Seconds(), sets[i].pool)
			o.ObserveInt64(most.Inst(), int64(limit), sets[i].pool)
			o.ObserveInt64(pending.Inst(), int64(waiting), sets[i].pool)
			o.ObserveInt64(timeouts.Inst(), late, sets[i].pool)
			for why := range reasons {
				if chosen := n.chosen[why].Load(); chosen > 0 {
					o.ObserveInt64(choices, chosen, sets[i].choices[why])
				}
			}
			if c == nil {
				continue
			}
			answers, role := int64(0), sets[i].primary
			if n.state.Load().err == nil {
				answers = 1
			}
			if n != c.primary {
				role = sets[i].replica
				if answers == 1 {
					o.ObserveFloat64(lag, time.Duration(n.lag.Load()).Seconds(), sets[i].server)
				}
			}
			o.ObserveInt64(up, answers, role)
		}
		o.ObserveInt64(lost, r.lostWrites.Load())
		return nil
	}, count.Inst(), most.Inst(), pending.Inst(), timeouts.Inst(), choices, lag, lost, occupied, up)
	return err
}
