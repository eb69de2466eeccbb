package events

import "hash/fnv"

// Partitions is into how many parts the events of a keyed type fall. It is part of the
// format: a change would put a key's new events beside its old ones.
const Partitions = 16

// Partition is that of a key: its 32 bit FNV-1a hash, modulo [Partitions]; -1 without a
// key. (http://www.isthe.com/chongo/tech/comp/fnv/)
func Partition(key string) int {
	if key == "" {
		return -1
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum32() % Partitions)
}
