package manifests

import (
	"fmt"
	"time"
)

// deployed is what the templates of Kubernetes' objects are filled with.
type deployed struct {
	Config

	// Pool is an instance's to the primary.
	Pool                      int
	Peak, Connections, Budget int
	Variables                 []nameValue
	Version                   string
	// LatencyQuantity is in seconds, as Kubernetes writes thousandths of them.
	LatencyQuantity, LatencySeconds string
	LatencyMillis                   int64
	MilliCPU, MemoryLimit           int64
	Grace                           int
	EndMargin                       time.Duration
	FallbackReplicas                int
	External                        []externalMetric
}

// endMargin is for what a process has to do when its requests have ended.
//
// Conduit's, one after another: events drain for 10 s, NATS for 5, telemetry for 5.
const endMargin = 20 * time.Second

// Kubernetes returns the Deployment, its Service and PodDisruptionBudget, and what scales
// it: a HorizontalPodAutoscaler with the rules of prometheus-adapter, or a ScaledObject.
func Kubernetes(c Config) ([]File, error) {
	if err := c.Complete(); err != nil {
		return nil, err
	}
	d := c.deployed()
	names := []string{"deployment.yaml", "service.yaml", "disruption.yaml"}
	if c.Scaler == ScalerKEDA {
		names = append(names, "scaledobject.yaml")
	} else {
		names = append(names, "hpa.yaml", "adapter.yaml")
	}
	var files []File
	for _, name := range names {
		files = append(files, rendered("kubernetes", name, d))
	}
	return files, nil
}

func (c Config) deployed() deployed {
	p, _ := c.pools() // Complete has seen it
	grace := c.PreStop + c.DrainDelay + c.DrainTimeout + endMargin
	return deployed{
		Config: c, Pool: p.primary, Peak: c.peak(), Connections: c.peak() * (p.primary + c.OtherConnections), Budget: c.budget(), Variables: c.variables(p), Version: c.version(),
		LatencyQuantity: fmt.Sprintf("%dm", c.Latency.Milliseconds()), LatencySeconds: seconds(c.Latency), LatencyMillis: c.Latency.Milliseconds(),
		MilliCPU: int64(c.CPU * 1000), MemoryLimit: c.Memory / 10 * 9, Grace: int((grace + time.Second - 1) / time.Second), EndMargin: endMargin,
		FallbackReplicas: c.MinReplicas, External: c.external(),
	}
}

// externalMetric is one that an autoscaler asks prometheus-adapter for.
type externalMetric struct{ Name, Series, Query string }

func (c Config) external() []externalMetric {
	of := func(name, series, resource string) externalMetric {
		more := ""
		if resource != "" {
			more = fmt.Sprintf(",resource=%q", resource)
		}
		return externalMetric{name, fmt.Sprintf("{__name__=%q%s}", series, more), "<<.Series>>{<<.LabelMatchers>>" + more + "}"}
	}
	if c.Policy == PolicyDemand {
		return []externalMetric{of("loadline_desired_replicas", "loadline:replicas:desired", "")}
	}
	return []externalMetric{
		of("loadline_latency_p95_seconds", "loadline:latency:p95", ""),
		of("loadline_queue_replicas", "loadline:replicas:needed", "events"),
		of("loadline_connection_utilisation", "loadline:utilisation", "connections"),
	}
}
