package cachemodel

type two = [sessions]uint8

// Runs all hold. Those that name a broken rule show that it is not needed there.
var Runs = []Run{
	{Name: "one-writer", Writes: two{2, 0}, Reads: two{1, 1}},
	{Name: "two-writers", Writes: two{1, 1}, Reads: two{1, 0}},
	{Name: "many-reads", Writes: two{1, 0}, Reads: two{2, 2}, Faults: Faults{Noise: 1}},
	{Name: "expiry", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Expire: 2, Refresh: 1}},
	{Name: "crashes", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{WriterDies: 1, RelayDies: 1, FillerDies: 1}},
	{Name: "lease-hang", Writes: two{1, 0}, Reads: two{2, 2}, Faults: Faults{FillerDies: 2}, NoBound: true},
	{Name: "unacked", Writes: two{1, 0}, Reads: two{2, 1}, Faults: Faults{InvFails: 2}, Drain: true},
	{Name: "unacked-2w", Writes: two{1, 1}, Reads: two{1, 0}, Faults: Faults{InvFails: 1}, Drain: true},
	{Name: "unacked-2own", Writes: two{2, 0}, Reads: two{2, 0}, Faults: Faults{InvFails: 1}, Drain: true},
	{Name: "redis-away", Writes: two{1, 0}, Reads: two{2, 1}, Faults: Faults{InvFails: 1, RedisAway: 1}, Drain: true},
	{Name: "loss", Writes: two{1, 0}, Reads: two{2, 2}, Faults: Faults{Deaf: 2}},
	{Name: "loss-drain", Writes: two{1, 0}, Reads: two{2, 1}, Faults: Faults{Deaf: 1, InvFails: 1}, Drain: true},
	{Name: "restart", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Restart: 2}},
	{Name: "handler", Writes: two{1, 0}, Reads: two{0, 2}, Faults: Faults{WriterDies: 1, RelayDies: 1, InvFails: 1}, Events: true, Drain: true},
	{Name: "handler-2w", Writes: two{2, 0}, Reads: two{0, 1}, Faults: Faults{RelayDies: 1}, Events: true},
	{Name: "failover", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Failover: 1}, Drain: true},
	{Name: "failover-handler", Writes: two{1, 0}, Reads: two{0, 2}, Faults: Faults{Failover: 1, RelayDies: 1, WriterDies: 1}, Drain: true, Events: true},
	{Name: "failover-unacked", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Failover: 1, InvFails: 1}, Drain: true},
	{Name: "split", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Failover: 1}, Drain: true, Split: true},
	{Name: "split-handler", Writes: two{1, 0}, Reads: two{0, 1}, Faults: Faults{Failover: 1, RelayDies: 1, WriterDies: 1}, Drain: true, Split: true, Events: true},
	{Name: "lsn-only", Writes: two{1, 0}, Reads: two{2, 1}, Faults: Faults{InvFails: 1}, Drain: true, LSNOnly: true},
	{Name: "lsn-only-failover", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Failover: 1}, Drain: true, Split: true, LSNOnly: true},
	{Name: "early", Writes: two{1, 0}, Reads: two{2, 1}, Faults: Faults{InvFails: 1}, Drain: true, Early: true},
	{Name: "other-key", Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{Other: 1, InvFails: 1}, Drain: true},
	{Name: "batch-any-epoch", Writes: two{1, 0}, Reads: two{0, 1}, Faults: Faults{Failover: 1}, Drain: true, Events: true, Broken: BatchAnyEpoch}, // not needed: the floor covers
	{Name: "anyone-opens", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Failover: 1}, Drain: true, Broken: AnyoneOpens},                    // enough without a split
	{Name: "floor-follows-d", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Expire: 2}, Drain: true, FloorIsD: true},
	{Name: "dedup", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{WriterDies: 1, RelayDies: 1}, Dedup: true},

	// The variants of the numbers.
	{Name: "join-by-last", Writes: two{1, 0}, Reads: two{2, 2}, JoinByLast: true},
	{Name: "bypass-no-fence", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{FillerDies: 1}, Broken: BypassNoFence},

	// Tags.
	{Name: "tag", Writes: two{1, 0}, Reads: two{2, 2}, Tagged: 0b10},
	{Name: "tag-twice", Writes: two{2, 0}, Reads: two{1, 1}, Tagged: 0b110},
	{Name: "tag-then-key", Writes: two{2, 0}, Reads: two{1, 1}, Tagged: 0b010},
	{Name: "key-then-tag", Writes: two{2, 0}, Reads: two{1, 1}, Tagged: 0b100},
	{Name: "tag-two-writers", Writes: two{1, 1}, Reads: two{1, 0}, Tagged: 0b100},
	{Name: "tag-unacked", Writes: two{1, 0}, Reads: two{2, 1}, Faults: Faults{InvFails: 1}, Drain: true, Tagged: 0b10},
	{Name: "tag-redis-away", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{InvFails: 1, RedisAway: 1}, Drain: true, Tagged: 0b10},
	{Name: "tag-loss", Writes: two{1, 0}, Reads: two{2, 1}, Faults: Faults{Deaf: 2}, Tagged: 0b10},
	{Name: "tag-loss-drain", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Deaf: 1, InvFails: 1}, Drain: true, Tagged: 0b10},
	{Name: "tag-expiry", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Expire: 2, Refresh: 1}, Tagged: 0b10},
	{Name: "tag-expiry-loss", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Expire: 2, Deaf: 1}, Tagged: 0b10},
	{Name: "tag-restart", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Restart: 1}, Tagged: 0b10},
	{Name: "tag-crashes", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{WriterDies: 1, RelayDies: 1, FillerDies: 1}, Tagged: 0b10},
	{Name: "tag-handler", Writes: two{1, 0}, Reads: two{0, 2}, Faults: Faults{WriterDies: 1, RelayDies: 1}, Events: true, Drain: true, Tagged: 0b10},
	{Name: "tag-failover", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Failover: 1}, Drain: true, Tagged: 0b10},
	{Name: "tag-split", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Failover: 1}, Drain: true, Split: true, Tagged: 0b10},
	{Name: "tag-reached", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Deaf: 1, Restart: 1}, Reached: true, Tagged: 0b10},
	{Name: "tag-number-ignored", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Deaf: 1, Expire: 1}, Tagged: 0b10, Reached: true, Broken: SetIgnoresTagNumber},
	{Name: "tag-as-of-set", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Deaf: 1}, Reached: true, AsOfAtSet: true, Tagged: 0b10},
	{Name: "tag-gained", Writes: two{2, 0}, Reads: two{1, 1}, Tagged: 0b100, Bare: 0b001},
	{Name: "tag-gained-unacked", Writes: two{2, 0}, Reads: two{1, 0}, Faults: Faults{InvFails: 1}, Drain: true, Tagged: 0b100, Bare: 0b001},

	// Evictions.
	{Name: "evict", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Evict: 1}},
	{Name: "evict-loss", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Evict: 1, Deaf: 1}},
	{Name: "evict-tag", Writes: two{1, 0}, Reads: two{1, 2}, Faults: Faults{Evict: 1}, Tagged: 0b10},
	{Name: "evict-tag-loss", Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Evict: 1, Deaf: 1}, Tagged: 0b10},
}
