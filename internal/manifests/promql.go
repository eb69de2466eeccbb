package manifests

import "fmt"

// promQL writes expressions over histograms of either kind, for one job. Quantiles are
// of merged histograms, never of quantiles.
type promQL struct {
	job    string
	native bool
}

// probes are asked by Kubernetes and by balancers, and are nobody's requests.
const probes = "/healthz|/readyz"

const requestDuration = "http_server_request_duration_seconds"

// Of is a selector for the job's series, with more of it behind.
func (p promQL) Of(metric string, more ...string) string {
	s := fmt.Sprintf("%s{job=%q", metric, p.job)
	for _, matcher := range more {
		s += "," + matcher
	}
	return s + "}"
}

// Zero is for what does not exist before its first event, and for none of it while no
// instance answers.
func (p promQL) Zero() string { return "0 * (" + p.Of("loadline:replicas:now") + " > 0)" }

// Requests counts them a second; by are labels beside job.
func (p promQL) Requests(by, window string, more ...string) string {
	return p.Count(requestDuration, by, window, append([]string{fmt.Sprintf("http_route!~%q", probes)}, more...)...)
}

// RequestQuantile is of how long they took.
func (p promQL) RequestQuantile(quantile, by, window string) string {
	return p.Quantile(quantile, requestDuration, by, window, fmt.Sprintf("http_route!~%q", probes))
}

// SlowRequests counts those a second that took longer than an objective.
func (p promQL) SlowRequests(objective, window string) string {
	routes := fmt.Sprintf("http_route!~%q", probes)
	if p.native {
		of := "sum by (job) (rate(" + p.Of(requestDuration, routes) + "[" + window + "]))"
		return fmt.Sprintf("histogram_count(%s) * (1 - histogram_fraction(0, %s, %s)) >= 0", of, objective, of)
	}
	return fmt.Sprintf("%s - on (job) sum by (job) (rate(%s[%s]))", p.Requests("", window), p.Of(requestDuration+"_bucket", routes, leMatcher(objective)), window)
}

// leMatcher finds an edge as Prometheus 2 and 3 write it: 1 and 1.0.
func leMatcher(edge string) string {
	for _, c := range edge {
		if c == '.' {
			return fmt.Sprintf("le=%q", edge)
		}
	}
	return fmt.Sprintf(`le=~"%s|%s\\.0"`, edge, edge)
}

// DurationSeries is one that there is as soon as an instance has answered anything.
func (p promQL) DurationSeries() string {
	if p.native {
		return requestDuration
	}
	return requestDuration + "_count"
}

// Count is of a histogram's values a second.
func (p promQL) Count(metric, by, window string, more ...string) string {
	if p.native {
		return fmt.Sprintf("histogram_count(sum by (job%s) (rate(%s[%s])))", comma(by), p.Of(metric, more...), window)
	}
	return fmt.Sprintf("sum by (job%s) (rate(%s[%s]))", comma(by), p.Of(metric+"_count", more...), window)
}

// Quantile is of a histogram, merged over all that by does not name.
func (p promQL) Quantile(quantile, metric, by, window string, more ...string) string {
	if p.native {
		return fmt.Sprintf("histogram_quantile(%s, sum by (job%s) (rate(%s[%s])))", quantile, comma(by), p.Of(metric, more...), window)
	}
	return fmt.Sprintf("histogram_quantile(%s, sum by (job, le%s) (rate(%s[%s])))", quantile, comma(by), p.Of(metric+"_bucket", more...), window)
}

func comma(by string) string {
	if by == "" {
		return ""
	}
	return ", " + by
}
