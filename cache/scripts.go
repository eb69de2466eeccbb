package cache

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"

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
	inv, tag, acq, set, release, drained, open script
}

func newScripts() scripts {
	return scripts{
		inv: newScript(invLua), tag: newScript(tagLua), acq: newScript(acqLua), set: newScript(setLua), release: newScript(releaseLua),
		drained: newScript(drainedLua), open: newScript(openLua),
	}
}

// script is named to Redis by its digest, and sent to one that does not know it. rueidis.Lua sends a script with
// each call of ExecMulti.
type script struct{ text, digest string }

func newScript(text string) script {
	// Redis refuses a script with the first line that touches keys of another slot, which it lets pass without.
	text = "#!lua\n" + recordLua + text
	digest := sha1.Sum([]byte(text)) // which is Redis's name for it, and no secret
	return script{text, hex.EncodeToString(digest[:])}
}

// scriptCall is one of a script.
type scriptCall struct {
	script
	keys, args []string
}

// run runs scripts in one exchange, or in two when Redis does not know some of them.
func run(ctx context.Context, client rueidis.Client, calls ...scriptCall) []rueidis.RedisResult {
	commands := make([]rueidis.Completed, len(calls))
	for i, c := range calls {
		commands[i] = client.B().Evalsha().Sha1(c.digest).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
	}
	results := client.DoMulti(ctx, commands...)
	var unknown []int
	commands = commands[:0]
	for i, result := range results {
		if err, ok := rueidis.IsRedisErr(result.Error()); ok && err.IsNoScript() {
			c := calls[i]
			unknown = append(unknown, i)
			commands = append(commands, client.B().Eval().Script(c.text).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build())
		}
	}
	if len(unknown) > 0 {
		for i, result := range client.DoMulti(ctx, commands...) {
			results[unknown[i]] = result
		}
	}
	return results
}
