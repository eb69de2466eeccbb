package cache

import (
	_ "embed"

	"github.com/redis/rueidis"
)

var (
	//go:embed scripts/record.lua
	recordLua string
	//go:embed scripts/inv.lua
	invLua string
	//go:embed scripts/tag.lua
	tagLua string
	//go:embed scripts/acq.lua
	acqLua string
	//go:embed scripts/set.lua
	setLua string
	//go:embed scripts/release.lua
	releaseLua string
	//go:embed scripts/drained.lua
	drainedLua string
	//go:embed scripts/open.lua
	openLua string
)

// scripts are the steps of the protocol that Redis takes at once.
type scripts struct {
	inv, tag, acq, set, release, drained, open *rueidis.Lua
}

func newScripts() scripts {
	// Redis refuses a script with the first line that touches keys of another slot, which it lets pass without.
	script := func(text string) *rueidis.Lua { return rueidis.NewLuaScript("#!lua\n" + recordLua + text) }
	return scripts{
		inv: script(invLua), tag: script(tagLua), acq: script(acqLua), set: script(setLua), release: script(releaseLua),
		drained: script(drainedLua), open: script(openLua),
	}
}
