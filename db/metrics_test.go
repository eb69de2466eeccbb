package db_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/loadlinehq/loadline/db"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	reader := sdk.NewManualReader()
	router := open(t, func(c *db.Config) { c.MeterProvider = sdk.NewMeterProvider(sdk.WithReader(reader)) })
	ctx := client(t)
	var replica bool
	if err := router.Read(ctx).QueryRow(ctx, onReplica).Scan(&replica); err != nil {
		t.Fatal(err)
	}
	rows, err := router.Read(ctx, db.Strong()).Query(ctx, "SELECT generate_series(1, 9)")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	time.Sleep(100 * time.Millisecond) // for which rows have a connection
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, scope := range got.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					name := m.Name
					for _, key := range []string{"reason", "db.client.connection.state"} {
						if v, ok := p.Attributes.Value(attribute.Key(key)); ok {
							name += " " + v.AsString()
						}
					}
					values[name] += float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				values[m.Name] += float64(len(data.DataPoints))
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					role, _ := p.Attributes.Value("role")
					values[m.Name+" "+role.AsString()] += float64(p.Value)
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					values[m.Name] += p.Value
				}
			}
		}
	}
	for name, want := range map[string]float64{
		"loadline.db.choices caught_up":         1,
		"loadline.db.choices strong":            1,
		"loadline.db.choices write":             1, // the table
		"db.client.connection.count used":       1,
		"db.client.connection.max":              120,
		"db.client.connection.pending_requests": 0,
		"db.client.connection.timeouts":         0,
		"loadline.db.replica.lag":               2, // replicas
		"loadline.db.lost_writes":               0,
		"loadline.db.server.up primary":         1,
		"loadline.db.server.up replica":         2,
	} {
		if have, ok := values[name]; !ok || have != want {
			t.Errorf("%s is %v, want %v", name, have, want)
		}
	}
	if seconds := values["loadline.db.connection.occupied"]; seconds < 0.1 || seconds > 60 {
		t.Errorf("connections were occupied for %v s", seconds)
	}
	if t.Failed() {
		var all []string
		for name, value := range values {
			all = append(all, fmt.Sprintf("%s = %v", name, value))
		}
		slices.Sort(all)
		t.Log(all)
	}
}
