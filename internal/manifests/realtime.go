package manifests

import "fmt"

// Thresholds of realtime, all guesses: how full a gateway may be, how long after an
// event clients may hear of it, and how many of those that come may be refused.
const (
	gatewayFull        = "0.8"
	publicationSeconds = "10"
	refusedShare       = "0.05" // some are while all come back after a restart
)

const channelNamespace = "channel_namespace"

// OwnGateways: the gateways have a Deployment of their own.
func (c Config) OwnGateways() bool { return c.Realtime != "" && c.Realtime != c.Name }

// gateways writes expressions over their series. Those of their own Deployment count
// durations in classic histograms, as loadline gateway does.
func (r ruled) gateways() promQL {
	return promQL{job: r.Realtime, native: r.native && !r.OwnGateways()}
}

// fullness is of the gateway that is nearest to its limit.
func (r ruled) fullness() string {
	g := r.gateways()
	return fmt.Sprintf("max by (job) (sum by (job, instance) (%s) / sum by (job, instance) (%s))", g.Of("loadline_realtime_connections"), g.Of("loadline_realtime_connection_limit"))
}

// realtimeCauses are what goes wrong with channels.
func (r ruled) realtimeCauses() []alert {
	g := r.gateways()
	all := []alert{
		{
			"LoadlineRealtimeRefuses", fmt.Sprintf("sum by (job) (rate(%s[5m])) / sum by (job) (rate(%s[5m])) > %s", g.Of("loadline_realtime_handshakes_total", `outcome=~"full|limited"`), g.Of("loadline_realtime_handshakes_total"), refusedShare), "10m", severityPage,
			"{{ $labels.job }}: {{ $value | humanizePercentage }} of the clients that come are refused for want of room",
			"By outcome, full: the gateways have as many connections as they may, MaxConnections; more gateways take more. limited: more clients come a second than Handshakes allows, which is over soon after a restart; if it goes on, something cuts them off again and again: see loadline_realtime_disconnects_total.",
		},
		{
			"LoadlineRealtimeFull", r.fullness() + " > " + gatewayFull, "10m", severityTicket,
			"{{ $labels.job }}: a gateway has {{ $value | humanizePercentage }} of the connections that it may have",
			"When one ends, the others have to take its clients, too. Start another gateway, or raise MaxConnections if there is memory for it.",
		},
		{
			"LoadlinePublicationsFail", fmt.Sprintf("sum by (job, %s) (rate(%s[5m])) > 0", channelNamespace, g.Of("loadline_realtime_publications_total", `outcome="failed"`)), "2m", severityPage,
			"{{ $labels.job }}: what is published in {{ $labels.channel_namespace }} fails",
			"Redis is away for the gateways. Events wait meanwhile; what is published without them is lost, and clients do not hear of it.",
		},
		{
			"LoadlinePublicationsLate", g.Quantile("0.95", "loadline_realtime_publication_delay_seconds", channelNamespace, "5m") + " > " + publicationSeconds, "5m", severityTicket,
			"{{ $labels.job }}: clients hear of {{ $labels.channel_namespace }} after {{ $value | humanizeDuration }}",
			"That is p95 from the event until it was published. Either the outbox is late, or the gateways' group is: see LoadlineOutboxLate, and loadline_events_subscription_oldest_seconds.",
		},
	}
	if r.OwnGateways() { // others' are those of the job
		all = append(all, alert{
			"LoadlineRealtimeNotScraped", fmt.Sprintf("sum by (job) (%[1]s) < 0.5 * count by (job) (%[1]s)\nor absent(%[1]s)", g.Of("up")), "5m", severityPage,
			"{{ $labels.job }}: Prometheus sees less than half of the gateways",
			"Browsers may hear of nothing, and no other alert says so. Look at Prometheus' targets: --metrics, the port called admin, the pods.",
		})
	}
	return all
}

// realtimePanels are of connections, of what is told, and of what goes wrong.
func (r ruled) realtimePanels() []panel {
	g := r.gateways()
	counted := func(by, metric string) string {
		return "sum by (" + by + ") (rate(" + g.Of(metric) + "[2m]))"
	}
	return []panel{
		graph("Connections", plain, "", "{{transport}}", "sum by (transport) ("+g.Of("loadline_realtime_connections")+")", "limit", "sum("+g.Of("loadline_realtime_connection_limit")+")"),
		graph("Share of the limit, of the fullest gateway", share, "", "fullest", r.fullness()),
		graph("Clients that come", "ops", "All but accepted are refused.", "{{outcome}}", counted("outcome", "loadline_realtime_handshakes_total")),
		graph("Clients that come back", "ops", "Recovered is who was brought what was missed; lost is who is told to read anew.", "{{outcome}}", counted("outcome", "loadline_realtime_recoveries_total")),
		graph("Publications", "ops", "Late is told without what it says.", "{{"+channelNamespace+"}}, {{outcome}}", counted(channelNamespace+", outcome", "loadline_realtime_publications_total")),
		graph("p95 from event to publication", inSeconds, "", "{{"+channelNamespace+"}}", g.Quantile("0.95", "loadline_realtime_publication_delay_seconds", channelNamespace, "2m")),
		graph("Messages to clients", "ops", "", "messages", "sum(rate("+g.Of("loadline_realtime_messages_total")+"[2m]))"),
		graph("Connections that end", "ops", "3000: by the client; 3008: it reads too slowly; 3010: it has missed something; 3011: the gateway drains.", "{{code}}", counted("code", "loadline_realtime_disconnects_total")),
		graph("Subscriptions, and channels", plain, "A channel that is listened to at two gateways is two.", "subscriptions", "sum("+g.Of("loadline_realtime_subscriptions")+")", "channels", "sum("+g.Of("loadline_realtime_channels")+")"),
		graph("Gateways", plain, "", "all", "count("+g.Of("loadline_realtime_draining")+")", "that drain", "sum("+g.Of("loadline_realtime_draining")+")"),
	}
}
