package realtime

// Series are those that centrifuge counts by.
func (g *Gateway) Series() (n int) {
	families, err := g.metrics.registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		n += len(f.GetMetric())
	}
	return n
}
