// Package manifests writes what a service needs on Kubernetes so that it scales by what
// it is short of: a Deployment whose connections fit the database also while a release
// rolls, an autoscaler whose units are right, the recording rules that feed it, alerts
// that name causes, and dashboards that tell a spike of traffic from a slow release.
//
//	files, err := manifests.Kubernetes(config) // or Prometheus, Grafana
//
// All of it is made from one [Config], so that a name, a pool or an objective is the
// same in each. Equal configurations give equal bytes.
//
// It guarantees that replicas times connections, with those that a release adds, stay
// within the limit that it was told: otherwise it refuses. Pods that are still ending are
// not counted; the fifth of the limit that is left suffices for about one batch of a
// release. It does not ask a cluster or
// a database anything, and cannot know that it was told the truth.
package manifests
