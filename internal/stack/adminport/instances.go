package adminport

import (
	"github.com/loadlinehq/loadline/telemetry/live"
)

// instance is where one of the application is looked at.
type instance struct {
	admin  string
	source live.Source
}

// Page shows the stack, and the instances of its application. Close ends it.
func (m *Monitor) Page() (*live.Page, error) {
	return live.New(live.Config{Sources: m.instances, Stack: func() (any, map[string]float64) {
		status := m.Status()
		m.mu.Lock()
		defer m.mu.Unlock()
		return status, m.load
	}})
}

// instances are those that the stack has now: the same source for the same one, each time.
func (m *Monitor) instances() []live.Source {
	services := m.stack.Services()
	m.mu.Lock()
	defer m.mu.Unlock()
	var sources []live.Source
	for _, s := range services {
		if s.Admin == "" {
			continue
		}
		known := m.sources[s.Name]
		if known.admin != s.Admin {
			source, err := live.Remote(s.Name, "http://"+s.Admin)
			if err != nil {
				continue // it is our own address
			}
			known = instance{s.Admin, source}
			m.sources[s.Name] = known
		}
		sources = append(sources, known.source)
	}
	return sources
}
