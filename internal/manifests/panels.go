package manifests

import "fmt"

// requestPanels are rate, errors and duration, of all and by route.
func (r ruled) requestPanels() []panel {
	const failed = `http_response_status_code=~"5.."`
	return []panel{
		graph("Requests", perSecond, "Probes are not counted.",
			"all", r.Of("loadline:requests:rate1m"), "admitted", r.Of("loadline:admitted:rate1m")),
		graph("Duration", inSeconds, fmt.Sprintf("Of merged histograms of all instances. The objective is a p95 of %s.", r.Latency),
			"p50", r.Of("loadline:latency:p50"), "p95", r.Of("loadline:latency:p95"), "p99", r.Of("loadline:latency:p99"),
			"objective", fmt.Sprintf("vector(%s)", r.LatencySeconds)),
		graph("Requests by route", perSecond, "", "{{http_route}}", r.Requests("http_route", "2m")),
		graph("p95 by route", inSeconds, "", "{{http_route}}", r.RequestQuantile("0.95", "http_route", "2m")),
		graph("Failed by route", perSecond, "Status 500 and above.", "{{http_route}}", r.Requests("http_route", "2m", failed)),
		graph("By status", perSecond, "", "{{http_response_status_code}}", r.Requests("http_response_status_code", "2m")),
		graph("Share of an hour that was bad", share, fmt.Sprintf("The objectives allow 5 %% slower than %s, and %s %% that fail.", r.Latency, number(100*(1-r.Availability))),
			"{{slo}}", r.Of("loadline:slo:bad:share1h")),
		graph("Shed and limited", perSecond, "",
			"shed, {{class}}", "sum by (class) (rate("+r.Of("loadline_overload_requests_total", `outcome="shed"`)+"[2m]))",
			"limited by {{by}}", "sum by (by) (rate("+r.Of("loadline_ratelimit_decisions_total", `decision="denied"`)+"[2m]))"),
	}
}

// resourcePanels are utilisation, saturation and errors of each resource.
func (r ruled) resourcePanels() []panel {
	const pool = "db_client_connection_pool_name"
	return []panel{
		graph("Utilisation", share, "What is highest is the bottleneck.", "{{resource}}", r.Of("loadline:utilisation")),
		graph("Headroom, and whose it is", share, "", "headroom", r.Of("loadline:headroom"), "{{resource}}", r.Of("loadline:bottleneck")),
		graph("CPU by instance", plain, "In cores.", "{{instance}}", "rate("+r.Of("process_cpu_seconds_total")+"[1m])",
			"requested", fmt.Sprintf("vector(%s)", r.Cores)),
		graph("Memory by instance", inBytes, "", "{{instance}}", r.Of("process_resident_memory_bytes"), "limit", fmt.Sprintf("vector(%d)", r.Memory)),
		graph("Connections in use", plain, "", "{{"+pool+"}}", "sum by ("+pool+") (rate("+r.Of("loadline_db_connection_occupied_seconds_total")+"[2m]))",
			"most, {{"+pool+"}}", "sum by ("+pool+") ("+r.Of("db_client_connection_max")+")"),
		graph("Share of instances that reach a server", share, "Of all that answer the last poll. While no primary is known, every server is a replica.", "{{server}}, {{role}}", "avg by (server, role) ("+r.Of("loadline_db_server_up")+")"),
		graph("Callers that wait for connections", plain, "", "{{"+pool+"}}", "sum by ("+pool+") ("+r.Of("db_client_connection_pending_requests")+")",
			"in vain a second, {{"+pool+"}}", "sum by ("+pool+") (rate("+r.Of("db_client_connection_timeouts_total")+"[2m]))"),
		graph("p95 of waits for connections", inSeconds, "Of callers that had to wait.", "{{"+pool+"}}", r.Quantile("0.95", "db_client_connection_wait_time_seconds", pool, "2m")),
		graph("Why calls come to a server", "ops", "fallback and too_new are reads that replicas could not answer.", "{{reason}}, {{server}}", "sum by (server, reason) (rate("+r.Of("loadline_db_choices_total")+"[2m]))"),
		graph("Replicas behind", inSeconds, "", "{{server}}", "max by (server) ("+r.Of("loadline_db_replica_lag_seconds")+")"),
		graph("Requests in flight", plain, "", "in flight", "sum("+r.Of("loadline_overload_in_flight")+")", "queued", "sum("+r.Of("loadline_overload_queued")+")", "limit", "sum("+r.Of("loadline_overload_limit")+")"),
		graph("Reads of caches", "ops", "", "{{cache}}, {{outcome}}", "sum by (cache, outcome) (rate("+r.Of("loadline_cache_reads_total")+"[2m]))"),
		graph("Instances that cache", plain, "", "active", "sum("+r.Of("loadline_cache_active")+")", "all", r.Of("loadline:replicas:now")),
		graph("p95 of loads into caches", inSeconds, "", "{{cache}}", r.Quantile("0.95", "loadline_cache_load_duration_seconds", "cache", "2m")),
		graph("Memory of caches", inBytes, "", "{{cache}}", "sum by (cache) ("+r.Of("loadline_cache_bytes")+")"),
		graph("Outbox: age", inSeconds, "", "oldest event", "max("+r.Of("loadline_outbox_age_seconds")+")", "oldest invalidation", "max("+r.Of("loadline_outbox_invalidation_age_seconds")+")"),
		graph("Outbox: what waits", plain, "", "waiting", "max("+r.Of("loadline_outbox_depth")+")", "held", "max("+r.Of("loadline_outbox_held")+")", "refused for good", "max("+r.Of("loadline_outbox_dead_depth")+")"),
		graph("Events that are not settled", plain, "", "{{subscription}}", "max by (subscription) ("+r.Of("loadline_events_subscription_pending")+")"),
		graph("Age of the oldest event", inSeconds, "", "{{subscription}}", "max by (subscription) ("+r.Of("loadline_events_subscription_oldest_seconds")+")"),
		graph("Events handled", "ops", "", "{{group}}, {{outcome}}", "sum by (group, outcome) (rate("+r.Of("loadline_events_handled_total")+"[2m]))"),
		graph("Room in streams", share, "Share of the bound that is nearer.", "{{stream}}", "max by (stream) ("+r.Of("loadline_events_stream_used_ratio")+")"),
		graph("Goroutines by instance", plain, "", "{{instance}}", r.Of("go_goroutine_count")),
		graph("Traces", "ops", "What became of them.", "{{outcome}}", "sum by (outcome) (rate("+r.Of("loadline_traces_total")+"[2m]))"),
	}
}

// causePanels tell a spike from a slow release: in a spike requests go up and what one
// costs does not; with a slow release it is the other way around, from a mark on.
func (r ruled) causePanels() []panel {
	changed := graph("What has changed in half an hour", plain,
		"Natural logarithms, so that they add up: instances = traffic + CPU of a request. 0.1 is a tenth more, 0.7 twice as much. Only traffic has moved: a spike. Only the CPU, or the database time, of a request has, from a release on: the release.",
		"{{of}}", r.Of("loadline:change"))
	changed.FieldConfig.Defaults.Min = nil // less is a change, too
	return []panel{
		changed,
		graph("p95", inSeconds, "", "p95", r.Of("loadline:latency:p95"), "objective", fmt.Sprintf("vector(%s)", r.LatencySeconds)),
		graph("Requests", perSecond, "Traffic: what a spike moves.", "admitted", r.Of("loadline:admitted:rate1m")),
		graph("CPU of a request", inSeconds, "Code: what a slow release moves.", "cpu", r.Of("loadline:cpu_per_request:rate5m")),
		graph("Database time of a request", inSeconds, "For how long it holds connections: statements that are new or slower, or a database that is.", "database", r.Of("loadline:database_per_request:rate5m")),
		graph("Instances", plain, "now is what there are, demand what traffic and events need, guard what the database bears; desired is demand, but not beyond guard.",
			"now", r.Of("loadline:replicas:now"), "demand", r.Of("loadline:replicas:demand"), "guard", r.Of("loadline:replicas:guard"), "desired", r.Of("loadline:replicas:desired")),
		graph("Instances by version", plain, "", "{{service_version}}", "count by (service_version) ("+r.Of("loadline_deploy_time_seconds")+")"),
		graph("Demand by resource", plain, "", "{{resource}}", r.Of("loadline:replicas:needed")),
	}
}
