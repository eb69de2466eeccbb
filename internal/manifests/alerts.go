package manifests

import (
	"fmt"
	"slices"
)

const (
	severityPage   = "page"   // somebody has to do something now
	severityTicket = "ticket" // somebody has to do something in office hours
)

// alert is one that names a cause.
type alert struct {
	Name, Expr, For, Severity, Summary, Description string
}

// Thresholds that nobody has had a reason to change yet. All are guesses but for the
// first, which is a fifth of the usual objective of 250 ms.
const (
	poolWaitSeconds   = "0.05"
	replicaLagSeconds = "10"
	outboxAgeSeconds  = "60"
	catchUpSeconds    = "1800"
	newCPU            = "0.14" // ln 1.15
)

// causes are the alerts that say what is wrong, where the burn-rate alerts say that it
// hurts.
func (r ruled) causes() []alert {
	of := func(recorded string, more ...string) string { return r.Of(recorded, more...) }
	all := []alert{
		{
			"LoadlineNotScraped", fmt.Sprintf("sum by (job) (%s) < 0.5 * count by (job) (%s)\nor absent(%s)", of("up"), of("up"), of("up")), "5m", severityPage,
			"{{ $labels.job }}: Prometheus sees less than half of the instances",
			"The rules, the autoscaler and all other alerts go by what the instances say. Look at Prometheus' targets: the token, the admin port, the pods.",
		},
		{
			"LoadlineNoDurations", fmt.Sprintf("count by (job) (%s == 1)\nunless on (job) count by (job) (%s)", of("up"), of(r.DurationSeries())), "10m", severityPage,
			"{{ $labels.job }}: instances answer, and nobody knows how long requests take",
			"Rates, latencies and all budgets are 0 meanwhile, whatever happens; probes alone should be counted. Native histograms need --enable-feature=native-histograms (Prometheus 2.40 to 3.7), or scrape_native_histograms: true (from 3.8 on); otherwise deploy and telemetry.classicHistograms do not agree.",
		},
		{
			"LoadlinePrimaryAway", fmt.Sprintf("max by (job) (%[1]s) < 1\nor (count by (job) (%[2]s) unless on (job) count by (job) (%[1]s))", of("loadline_db_server_up", `role="primary"`), of("loadline_db_server_up")), "1m", severityPage,
			"{{ $labels.job }}: no instance reaches a primary",
			"Nothing can be written. loadline check says what the servers answer; promote a replica if the primary does not come back.",
		},
		{
			"LoadlineReplicaAway", fmt.Sprintf("avg by (job, server) (%s) < 0.5", of("loadline_db_server_up", `role="replica"`)), "5m", severityTicket,
			"{{ $labels.job }}: most instances do not reach {{ $labels.server }}",
			"The others, and the primary, answer its reads. loadline check says what it answers.",
		},
		{
			"LoadlineHeadroom", fmt.Sprintf("%s < 0.2", of("loadline:headroom")), "10m", severityTicket,
			"{{ $labels.job }}: less than a fifth of its scarcest resource is left",
			"loadline:bottleneck names it. cpu: raise deploy.maxReplicas, if the connection limit allows it; connections: raise the limit, cache more, or make queries cheaper; requests in flight: see which of the two holds them; event streams: raise their bounds or see who does not handle.",
		},
		{
			"LoadlineGuarded", fmt.Sprintf("%s > 0", of("loadline:replicas:guarded")), "5m", severityPage,
			"{{ $labels.job }}: more instances are needed than {{ $labels.resource }} allows",
			"More would make the database slower. What is too much is shed. Raise what {{ $labels.resource }} names, or make requests cheaper for it.",
		},
		{
			"LoadlineAtMaximum", fmt.Sprintf("%s >= %d", of("loadline:replicas:now"), r.MaxReplicas), "15m", severityTicket,
			"{{ $labels.job }}: there are as many instances as there may be",
			"Either demand has grown, and deploy.maxReplicas has to, within the connection limit; or they are scaled by a latency that instances do not lower: compare loadline:replicas:demand.",
		},
		{
			"LoadlinePoolWait", r.Quantile("0.95", "db_client_connection_wait_time_seconds", "db_client_connection_pool_name", "5m") + " > " + poolWaitSeconds, "5m", severityTicket,
			"{{ $labels.job }}: callers wait for connections to {{ $labels.db_client_connection_pool_name }}",
			"p95 of who has to wait is {{ $value | humanizeDuration }}. Look at the time that statements take there, and at loadline:database_per_request:rate5m, before the pool is made larger.",
		},
		{
			"LoadlinePoolTimeouts", fmt.Sprintf("sum by (job, db_client_connection_pool_name) (rate(%s[5m])) > 0", of("db_client_connection_timeouts_total")), "2m", severityPage,
			"{{ $labels.job }}: callers have waited in vain for connections to {{ $labels.db_client_connection_pool_name }}",
			"Their requests have failed. The server is slow or away, or the pool far too small.",
		},
		{
			"LoadlineReplicaLag", fmt.Sprintf("max by (job, server) (%s) > %s", of("loadline_db_replica_lag_seconds"), replicaLagSeconds), "2m", severityTicket,
			"{{ $labels.job }}: {{ $labels.server }} is behind by {{ $value | humanizeDuration }}",
			"Who has just written reads the primary meanwhile, which has to bear that. Look for a long query on the replica, and at what the primary writes.",
		},
		{
			"LoadlineLostWrites", fmt.Sprintf("max by (job) (increase(%s[10m])) > 0", of("loadline_db_lost_writes_total")), "", severityPage,
			"{{ $labels.job }}: a failover has lost writes that were acknowledged",
			"See db.Config.LostWrite for what they were, and docs/db.md for what to do.",
		},
		{
			"LoadlineEventsLate", fmt.Sprintf("max by (job, subscription) (%[1]s) > %[2]s\nand on (job, subscription) max by (job, subscription) (deriv(%[3]s[10m])) + max by (job, subscription) (%[3]s) / %[4]s > 0", of("loadline_events_subscription_oldest_seconds"), r.DrainSeconds, of("loadline_events_subscription_pending"), catchUpSeconds), "5m", severityTicket,
			"{{ $labels.job }}: {{ $labels.subscription }} is late by {{ $value | humanizeDuration }}, and does not catch up",
			"Look at loadline_events_handled_total of the group: retried and dead are handlers that fail; none at all, handlers that are stuck; done, too few instances or a slow database.",
		},
		{
			"LoadlineOutboxLate", fmt.Sprintf("max by (job) (%s) > %s", of("loadline_outbox_age_seconds"), outboxAgeSeconds), "2m", severityPage,
			"{{ $labels.job }}: an event waits for {{ $value | humanizeDuration }} to be published",
			"loadline_outbox_relay_paused says whether the broker is away or full, loadline_outbox_held whether an event holds back its key. loadline events status shows it.",
		},
		{
			"LoadlineNoRelay", fmt.Sprintf("sum by (job) (%s) < 1", of("loadline_outbox_relay_active")), "2m", severityPage,
			"{{ $labels.job }}: nobody publishes the outbox",
			"No instance has the lease: the database does not give one, or all of them have failed. Events and invalidations wait meanwhile.",
		},
		{
			"LoadlineInvalidationsLate", fmt.Sprintf("max by (job) (%s) > 10", of("loadline_outbox_invalidation_age_seconds")), "1m", severityPage,
			"{{ $labels.job }}: the caches have not been told of changes for {{ $value | humanizeDuration }}",
			"Redis is away, or the relay is. Readers who have not written themselves see what was before.",
		},
		{
			"LoadlineDeadLetters", fmt.Sprintf("sum by (job, type, group) (increase(%s[15m])) > 0", of("loadline_events_handled_total", `outcome="dead"`)), "", severityTicket,
			"{{ $labels.job }}: {{ $labels.group }} has given up events of type {{ $labels.type }}",
			"They are in the stream of dead letters. Mend the handler, then drive them again.",
		},
		{
			"LoadlineRejectedEvents", fmt.Sprintf("max by (job) (%s) > 0", of("loadline_outbox_dead_depth")), "10m", severityTicket,
			"{{ $labels.job }}: the broker has refused {{ $value }} events for good",
			"loadline events rejected shows them, and publishes them again or drops them.",
		},
		{
			"LoadlineCacheInactive", fmt.Sprintf("count by (job) (%s == 0) > 0", of("loadline_cache_active")), "5m", severityTicket,
			"{{ $labels.job }}: {{ $value }} instances do not cache",
			"They take part in no epoch: Redis is away for them, or nobody tells it of changes. The database answers what the cache did; look at its headroom.",
		},
		{
			"LoadlineLimitsAlone", fmt.Sprintf("sum by (job) (rate(%s[5m])) > 0", of("loadline_ratelimit_decisions_total", `by="local"`)), "5m", severityTicket,
			"{{ $labels.job }}: instances count requests for themselves",
			"Redis does not answer them in time, and each allows its share of the limit.",
		},
		{
			"LoadlineShedding", fmt.Sprintf("sum by (job, class) (rate(%s[5m])) / on (job) group_left () %s > 0.05", of("loadline_overload_requests_total", `outcome="shed"`), of("loadline:requests:rate5m")), "5m", severityPage,
			"{{ $labels.job }}: more than a twentieth is shed, of class {{ $labels.class }}",
			"There is more than can be served. loadline:bottleneck says what is short.",
		},
		{
			"LoadlineReleaseCostsMore", fmt.Sprintf("%s > %s\nand on (job) %s", of("loadline:change", `of="cpu of a request"`), newCPU, of("loadline:release:new")), "5m", severityTicket,
			"{{ $labels.job }}: a request takes more CPU since the release",
			"By more than 15 %, against half an hour ago, and there is a version that was not there then. More instances hide it: compare profiles of the two versions.",
		},
		{
			"LoadlineReleaseBurdensDatabase", fmt.Sprintf("%s > 0.26\nand on (job) %s", of("loadline:change", `of="database time of a request"`), of("loadline:release:new")), "5m", severityTicket,
			"{{ $labels.job }}: a request holds connections for longer since the release",
			"By more than 30 %, against half an hour ago. Look for statements that are new, and for an index that is not there.",
		},
	}
	if r.MinReplicas == r.MaxReplicas { // then there always are
		all = slices.DeleteFunc(all, func(a alert) bool { return a.Name == "LoadlineAtMaximum" })
	}
	return all
}
