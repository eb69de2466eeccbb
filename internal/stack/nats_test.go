package stack

import (
	"errors"
	"slices"
	"testing"
)

// What the stack is told about the server reaches it by way of the child's command line.
func TestNATSArguments(t *testing.T) {
	t.Parallel()
	for _, sync := range []bool{false, true} {
		c := Config{Dir: t.TempDir(), NATSCommand: []string{"program", "nats-server"}, SyncNATS: sync}
		var argv []string
		captured := errors.New("captured")
		err := startNATS(t.Context(), func(p processSpec) (*process, error) { argv = p.argv; return nil, captured }, c, 4000)
		if !errors.Is(err, captured) || !slices.Equal(argv[:2], c.NATSCommand) {
			t.Fatalf("started as %q, %v", argv, err)
		}
		n, err := parseNATS(argv[2:])
		if err != nil {
			t.Fatal(err)
		}
		o := n.options()
		if o.SyncAlways != sync || o.Port != 4000+behindProxy || o.ClientAdvertise != loopback(4000) || o.StoreDir != c.Dir+"/nats" {
			t.Errorf("%q: the server would have port %d, advertise %s, store in %s, sync always %v", argv, o.Port, o.ClientAdvertise, o.StoreDir, o.SyncAlways)
		}
	}
	for _, args := range [][]string{nil, {"--port", "1", "--store-dir", "x"}, {"--port", "1", "--store-dir", "x", "--advertise", "y", "z"}, {"--sync"}} {
		if n, err := parseNATS(args); err == nil {
			t.Errorf("%q is taken for %+v", args, n)
		}
	}
}
