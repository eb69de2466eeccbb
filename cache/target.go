package cache

import (
	"errors"
	"fmt"
)

// Target is what an invalidation names: one key of one cache, or a tag. See [Cache.Key] and [Tag].
type Target struct {
	tag bool
	key string
	err error
}

// MaxTarget bounds a key with the cache's name and the tenant, and a tag, in bytes.
const MaxTarget = 1024

// Tag names all values whose loads have called [AddTags] with it, in all caches of a tenant; the
// empty tenant is that of applications without.
func Tag(tenant, tag string) Target { return target(true, tenant+"/"+tag) }

func target(tag bool, key string) Target {
	t := Target{tag: tag, key: key}
	if len(key) > MaxTarget {
		t.err = fmt.Errorf("cache: the key %.40q… has %d bytes, more than %d", key, len(key), MaxTarget)
	}
	return t
}

// Record is the target as outbox.AddInvalidation takes it, in the transaction that changes what is
// cached: the relay then invalidates it whatever becomes of the writer.
func (t Target) Record() []byte {
	kind := byte('k')
	if t.tag {
		kind = 't'
	}
	return append([]byte{recordVersion, kind}, t.key...)
}

var errTarget = errors.New("cache: not a record of an invalidation")

func parseTarget(record []byte) (Target, error) {
	if len(record) < 2 || record[0] != recordVersion || record[1] != 'k' && record[1] != 't' {
		return Target{}, errTarget
	}
	return Target{tag: record[1] == 't', key: string(record[2:])}, nil
}
