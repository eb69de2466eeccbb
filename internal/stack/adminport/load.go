package adminport

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/internal/stack"
)

// hops of package live that are servers of which no client knows how busy they are.
var hops = map[string]string{"redis": "cache", "nats": "broker"}

// tick is the unit of /proc/pid/stat, on every system that Go runs on.
const tick = 10 * time.Millisecond

// used is what a process had used of processors.
type used struct {
	pid int
	cpu time.Duration
	at  time.Time
}

// measureLoad says which share of its processors a server has used since it was asked last: Redis of one, which is all that its commands get, and NATS
// of all. It says nothing where there is no /proc.
func (m *Monitor) measureLoad(services []Service) map[string]float64 {
	load := make(map[string]float64)
	for _, s := range services {
		hop := hops[s.Role]
		if hop == "" || s.State != stack.Ready {
			continue
		}
		cpu, err := processorTime(s.PID)
		if err != nil {
			continue
		}
		now, before := used{s.PID, cpu, time.Now()}, m.used[s.Name]
		m.used[s.Name] = now
		if before.pid != s.PID {
			continue
		}
		processors := 1
		if s.Role == "nats" {
			processors = runtime.NumCPU()
		}
		load[hop] = (now.cpu - before.cpu).Seconds() / now.at.Sub(before.at).Seconds() / float64(processors)
	}
	return load
}

func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// pid (name) state ppid …; the name may hold anything. utime and stime are the 14th and 15th.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	return time.Duration(user+system) * tick, nil
}
