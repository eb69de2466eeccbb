package stacktest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The lease must outlive the collection of garbage: a connection that nothing refers
// to is closed with it, and the servers end under the test that uses them.
func TestLeaseOutlivesCollection(t *testing.T) {
	servers := start(t)
	before := connections(t, servers.LeaseAddr)
	if before == 0 {
		t.Skip("this system does not show connections in /proc/net/tcp")
	}
	for range 3 {
		runtime.GC()
		time.Sleep(20 * time.Millisecond) // finalizers run after the collection
	}
	if after := connections(t, servers.LeaseAddr); after == 0 {
		t.Error("the lease is gone")
	}
}

// connections counts this process's connections to an address of the loopback
// interface.
func connections(t *testing.T, addr string) int {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0
	}
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	mine := make(map[string]bool)
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			mine[target] = true
		}
	}
	count := 0
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 9 && fields[2] == hexAddr(addr) && mine["socket:["+fields[9]+"]"] {
			count++
		}
	}
	return count
}

// hexAddr is how proc_net_tcp(5) writes an address of 127.0.0.1 on this machine.
func hexAddr(addr string) string {
	_, port, _ := strings.Cut(addr, ":")
	n, _ := strconv.Atoi(port)
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32([]byte{127, 0, 0, 1}), n)
}
