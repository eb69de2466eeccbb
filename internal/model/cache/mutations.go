package cachemodel

// Rule names a rule by what is done where it is switched off.
type Rule string

// The rules.
const (
	FenceOff         Rule = "fence-off"
	LeaseOff         Rule = "lease-off"
	LeaseNoExpiry    Rule = "lease-no-expiry"
	ExpiryDropsFence Rule = "expiry-drops-fence"
	RestartUnnoticed Rule = "restart-unnoticed"
	NoNumber         Rule = "no-number"
	NoLSN            Rule = "no-lsn"
	UnackedIgnored   Rule = "unacked-ignored"
	MergeMax         Rule = "merge-max"
	ExchangeZero     Rule = "exchange-zero"
	DrainedNaive     Rule = "drained-naive"
	DrainedUnapplied Rule = "drained-unapplied"
	StoreUncovered   Rule = "store-uncovered"
	JoinUncovered    Rule = "join-uncovered"
	JoinStarted      Rule = "join-started"
	JoinBypassed     Rule = "join-bypassed"
	BypassNoFence    Rule = "bypass-no-fence"
	NoFlush          Rule = "no-flush"
	FlushKeepsLoads  Rule = "flush-keeps-loads"
	DeleteBeforeInv  Rule = "delete-before-inv"
	EventUnstamped   Rule = "event-unstamped"
	StampUnacked     Rule = "stamp-unacked"
	OneNamespace     Rule = "one-namespace"
	FloorOff         Rule = "floor-off"
	OpenDrained      Rule = "open-drained"
	NoEpoch          Rule = "no-epoch"
	OtherEpoch       Rule = "other-epoch"
	AnyoneOpens      Rule = "anyone-opens"
	BatchAnyEpoch    Rule = "batch-any-epoch"

	L1IgnoresNumbers Rule = "l1-ignores-numbers"
	NumberBeforeLast Rule = "number-before-last"

	SetIgnoresTagNumber Rule = "set-ignores-tag-number"
	SetIgnoresTagFence  Rule = "set-ignores-tag-fence"
	HitIgnoresTags      Rule = "hit-ignores-tags"
	L1IgnoresTags       Rule = "l1-ignores-tags"
	YoungTrusts         Rule = "young-trusts"
	TagExpiresEarly     Rule = "tag-expires-early"
	TagDropsFence       Rule = "tag-drops-fence"
	JoinTagged          Rule = "join-tagged"
	JoinRefused         Rule = "join-refused"
	StoreRefused        Rule = "store-refused"
	EarlyTagged         Rule = "early-tagged"
	TagGained           Rule = "tag-gained"

	FloorAbsentOnly   Rule = "floor-absent-only"
	EvictionsTagsOnly Rule = "evictions-tags-only"
	EvictionsUnheard  Rule = "evictions-unheard"
)

// Mutations are all violated: each switches one rule off, within bounds that suffice.
var Mutations = []Run{
	{Writes: two{1, 0}, Reads: two{1, 1}, Broken: FenceOff},
	{Writes: two{1, 0}, Reads: two{1, 1}, Broken: LeaseOff},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{FillerDies: 1}, NoBound: true, Broken: LeaseNoExpiry},
	{Writes: two{1, 0}, Reads: two{0, 2}, Faults: Faults{Expire: 1}, Broken: ExpiryDropsFence},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Restart: 1}, Broken: RestartUnnoticed},
	{Writes: two{1, 0}, Reads: two{1, 1}, Broken: NoNumber},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{InvFails: 1}, Drain: true, Broken: NoLSN},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{InvFails: 1}, Drain: true, Broken: UnackedIgnored},
	{Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{Other: 1, InvFails: 1}, Broken: MergeMax},
	{Writes: two{1, 0}, Reads: two{3, 0}, Faults: Faults{InvFails: 1}, Drain: true, Broken: ExchangeZero},
	{Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{InvFails: 1}, Drain: true, Broken: DrainedNaive},
	{Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{InvFails: 2}, Drain: true, Broken: DrainedUnapplied},
	{Writes: two{1, 1}, Reads: two{1, 0}, Faults: Faults{InvFails: 1}, Drain: true, Broken: StoreUncovered},
	{Writes: two{1, 0}, Reads: two{1, 1}, Broken: JoinUncovered},
	{Writes: two{1, 0}, Reads: two{1, 1}, Broken: JoinStarted},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{RedisAway: 1}, Broken: JoinBypassed},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Deaf: 1}, Broken: NoFlush},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Deaf: 1}, Broken: FlushKeepsLoads},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{WriterDies: 1, RelayDies: 1}, Broken: DeleteBeforeInv},
	{Writes: two{1, 0}, Reads: two{0, 2}, Faults: Faults{WriterDies: 1}, Events: true, Broken: EventUnstamped},
	{Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{Other: 1, WriterDies: 1, InvFails: 1}, Events: true, Broken: StampUnacked},
	{Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{Failover: 1}, Broken: OneNamespace},
	{Writes: two{1, 0}, Reads: two{0, 1}, Faults: Faults{Failover: 1}, Broken: FloorOff},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Failover: 1}, Broken: OpenDrained},
	{Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{Failover: 1}, Split: true, Drain: true, Broken: NoEpoch},
	{Writes: two{1, 0}, Reads: two{0, 2}, Faults: Faults{Failover: 1}, Broken: OtherEpoch},
	{Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{Failover: 1}, Split: true, Broken: AnyoneOpens},

	// The numbers.
	{Writes: two{1, 0}, Reads: two{1, 2}, Broken: L1IgnoresNumbers},
	{Writes: two{1, 0}, Reads: two{1, 2}, Broken: NumberBeforeLast},

	// Tags.
	{Writes: two{1, 0}, Reads: two{1, 1}, Reached: true, AsOfAtSet: true, Tagged: 0b10, Broken: SetIgnoresTagNumber},
	{Writes: two{1, 0}, Reads: two{1, 1}, Tagged: 0b10, Broken: SetIgnoresTagFence},
	{Writes: two{1, 0}, Reads: two{1, 1}, Tagged: 0b10, Broken: HitIgnoresTags},
	{Writes: two{1, 0}, Reads: two{1, 1}, Tagged: 0b10, Broken: L1IgnoresTags},
	{Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{Deaf: 1}, Tagged: 0b10, Broken: YoungTrusts},
	{Writes: two{1, 0}, Reads: two{2, 0}, Faults: Faults{Deaf: 1, Expire: 1}, Tagged: 0b10, Broken: TagExpiresEarly},
	{Writes: two{1, 0}, Reads: two{1, 1}, Faults: Faults{Expire: 1}, Tagged: 0b10, Broken: TagDropsFence},
	{Writes: two{1, 0}, Reads: two{1, 1}, Tagged: 0b10, JoinByLast: true, Broken: JoinTagged},
	{Writes: two{1, 0}, Reads: two{1, 1}, Tagged: 0b10, Broken: JoinRefused},
	{Writes: two{1, 0}, Reads: two{1, 1}, Tagged: 0b10, Broken: StoreRefused},
	{Writes: two{1, 0}, Reads: two{1, 1}, Tagged: 0b10, Early: true, Broken: EarlyTagged},
	{Writes: two{1, 1}, Reads: two{0, 2}, Tagged: 0b100, Bare: 0b001, Broken: TagGained},

	// Evictions.
	{Writes: two{1, 0}, Reads: two{0, 2}, Faults: Faults{Evict: 1}, Broken: FloorAbsentOnly},
	{Writes: two{1, 0}, Reads: two{0, 2}, Faults: Faults{Evict: 1}, Broken: EvictionsTagsOnly},
	{Writes: two{1, 0}, Reads: two{0, 2}, Faults: Faults{Evict: 1}, Broken: EvictionsUnheard},
}
