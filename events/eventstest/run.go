package eventstest

import (
	"log/slog"
	"testing"
)

var quiet = slog.New(slog.DiscardHandler)

type scenario struct {
	name string
	run  func(t *testing.T, b Broker)
}

var publishing = []scenario{
	{"bodies and headers come as they were sent", testBytes},
	{"types that can have no place are refused", testUnroutable},
	{"what is too large is refused, and its neighbours are not", testTooLarge},
	{"a burst of ten thousand", testBurst},
	{"a duplicate does not take its neighbours with it", testDuplicates},
	{"a full broker says so", testFull},
}

// Run runs the suite. Open is called for each case, which gets a share of its own; they
// run at the same time.
func Run(t *testing.T, open func(t *testing.T) Broker) {
	RunPublishing(t, open)
	run(t, open, []scenario{
		{"events wait for a subscription that comes later", testEarlier},
		{"a member that dies leaves its message to another", testCrash},
		{"a member that leaves gives back what it has not begun", testHandBack},
		{"a slow member that says so keeps its message", testExtend},
		{"a slow member that says nothing loses it", testNoExtend},
		{"a retry comes neither early nor late", testRetryAfter},
		{"what waits for its turn keeps its member", testHeld},
		{"slow handlers do not make others' deliveries count", testSlowHandlers},
		{"a handler that hangs keeps nothing from others", testHanging},
		{"an extension after a retry changes nothing", testExtendAfterRetry},
		{"each group gets all, its members share", testGroups},
		{"members come and go, and nothing is lost", testMembers},
		{"lag is true when all is quiet", testLag},
		{"the fifth failure is the last", testDead},
		{"poison does not hold up the others", testPoison},
		{"a panic is a failure", testPanic},
		{"what nobody understands is kept", testUnknownVersion},
		{"an effect is there once", testEffectOnce},
		{"keys stay in order", testOrder},
		{"a consumer ends in time", testGraceful},
		{"a batch is handled at once, and its bad apple alone", testBatch},
		{"trace, tenant and key come through", testContext},
		{"others can read it as a CloudEvent", testCloudEvents},
		{"a new group begins where it is told to", testStart},
		{"what was settled comes again after a rewind", testRewind},
		{"a group is rewound to its beginning at most", testRewindToStart},
		{"an event whose cause is lost is kept as such", testLostCause},
		{"clocks that differ change nothing", testSkew},
	})
}

// RunPublishing runs what is about publishing alone, of what [Run] does: for a driver that can
// do it in several ways.
func RunPublishing(t *testing.T, open func(t *testing.T) Broker) { run(t, open, publishing) }

func run(t *testing.T, open func(t *testing.T) Broker, scenarios []scenario) {
	for _, c := range scenarios {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, open(t))
		})
	}
}
