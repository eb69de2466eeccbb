package stack

import (
	"slices"
	"strings"
)

// kind is what is known of a [FaultKind].
type kind struct {
	FaultKind
	roles []string // of the services that it can be added to
	takes []string // the fields it may have, by the names of flags
	needs []string // those it must have
	does  string
	undo  string // what removing does; %s is the service
}

var (
	anyRole  = []string{"primary", "replica", "redis", "nats", "app"}
	pgRoles  = []string{"primary", "replica"}
	replicas = []string{"replica"}
)

var kinds = []kind{
	{FaultKill, anyRole, nil, nil, "kill -9 all its processes", "start %s again"},
	{FaultPause, anyRole, nil, nil, "SIGSTOP all its processes: connections stay open and nothing answers", "let %s's processes go on"},
	{FaultRestart, anyRole, nil, nil, "stop it in order, if it runs, and start it again; over when it is ready", "start %s if it does not run"},
	{FaultLatency, anyRole, []string{"delay", "jitter", "direction"}, []string{"delay"}, "delay what its clients send and receive", "take the delay out of %s's proxy"},
	{FaultBandwidth, anyRole, []string{"rate", "direction"}, []string{"rate"}, "limit the bytes per second of all its clients together", "take the limit out of %s's proxy"},
	{FaultStall, anyRole, nil, nil, "accept connections and pass nothing on", "let %s's proxy pass on what it holds"},
	{FaultCut, anyRole, []string{"direction"}, []string{"direction"}, "pass nothing on in one direction", "let %s's proxy pass on what it holds"},
	{FaultReset, anyRole, nil, nil, "reset its connections, and new ones", "let %s's proxy serve new connections"},
	{FaultRefuse, anyRole, nil, nil, "refuse new connections; open ones go on", "let %s's proxy listen again"},
	{FaultLag, replicas, []string{"delay"}, []string{"delay"}, "apply commits that much later than the primary (recovery_min_apply_delay)", "take recovery_min_apply_delay from %s's settings"},
	{FaultReplayPause, replicas, nil, nil, "receive WAL and replay none", "resume %s's replay"},
	{FaultStreamCut, replicas, nil, nil, "receive no WAL", "give %s its primary_conninfo back"},
	{FaultPromote, replicas, nil, nil, "kill -9 the primary and promote this replica; the others follow it", "make the old primary a replica of the new one, and restart the application's instances"},
	{FaultExhaust, pgRoles, []string{"sessions"}, nil, "hold its free connections by sessions that idle in a transaction", "end the sessions on %s"},
	{FaultDiskFull, []string{"primary", "replica", "redis", "nats"}, nil, nil, "restart it on a small file system in memory, and fill that (Linux, as root)", "copy %s's data back to the disk, and restart it there"},
}

func findKind(name FaultKind) (kind, bool) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.FaultKind == name })
	if i < 0 {
		return kind{}, false
	}
	return kinds[i], true
}

// FaultHelp describes a kind of fault.
type FaultHelp struct {
	Kind     FaultKind
	Services string // to which it can be added
	Flags    string
	Does     string
}

// FaultKinds describes all kinds, in a fixed order.
func FaultKinds() []FaultHelp {
	var all []FaultHelp
	for _, k := range kinds {
		help := FaultHelp{Kind: k.FaultKind, Services: strings.Join(k.roles, ", "), Does: k.does}
		if len(k.roles) == len(anyRole) {
			help.Services = "any"
		}
		var flags []string
		for _, flag := range k.takes {
			if flag = "--" + flag; !slices.Contains(k.needs, flag[2:]) {
				flag = "[" + flag + "]"
			}
			flags = append(flags, flag)
		}
		help.Flags = strings.Join(flags, " ")
		all = append(all, help)
	}
	return all
}
