package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"
)

// The cost of a new hash: the smallest of the configurations that the OWASP
// Password Storage Cheat Sheet recommends for Argon2id.
const (
	memoryKiB = 19 * 1024
	passes    = 2
	lanes     = 1
	saltBytes = 16
	keyBytes  = 32
)

// The most a stored hash may ask for. Whoever can write to the database could
// otherwise stop the server with one row.
const (
	maxMemoryKiB = 64 * 1024
	maxPasses    = 10
	maxLanes     = 4
	maxKeyBytes  = 64
)

var (
	// ErrBusy means that too many hashes wait, or that it was not this one's
	// turn in time.
	ErrBusy = errors.New("auth: too many passwords to hash")
	// ErrBadHash means that a stored hash cannot be read.
	ErrBadHash = errors.New("auth: not an Argon2id hash within the limits")
)

// A hash takes a processor for tens of milliseconds. Whoever waits for longer than
// maxWait would have no time left for the rest of his request; who comes after more
// than fit into that time is refused at once. Both are guesses for hashes of 20 ms
// to 80 ms.
const (
	maxWait           = 5 * time.Second
	maxWaitersPerTurn = 64
)

// Hasher hashes and checks passwords, as many at a time as there are
// processors. It may be used concurrently.
type Hasher struct {
	turns      *semaphore.Weighted
	waiting    atomic.Int64 // includes those whose turn it is
	maxWaiting int64
	dummy      string
}

// NewHasher returns a Hasher.
func NewHasher() *Hasher {
	turns := int64(runtime.GOMAXPROCS(0))
	return &Hasher{
		turns:      semaphore.NewWeighted(turns),
		maxWaiting: turns * (1 + maxWaitersPerTurn),
		// The hash of nothing known: its key is random.
		dummy: encode(params{memoryKiB, passes, lanes}, random(saltBytes), random(keyBytes)),
	}
}

// Hash returns the hash of the password in PHC string format. It returns
// ErrBusy when it gets no turn.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer h.release()

	p, salt := params{memoryKiB, passes, lanes}, random(saltBytes)
	return encode(p, salt, p.key(password, salt, keyBytes)), nil
}

// Verify reports whether the hash is that of the password. An empty hash
// stands for a user who does not exist: Verify then takes as long as ever and
// reports false, so that the time does not tell which e-mails are registered.
// It returns ErrBusy when it gets no turn, and ErrBadHash.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (bool, error) {
	known := hash != ""
	if !known {
		hash = h.dummy
	}
	p, salt, want, err := decode(hash)
	if err != nil {
		return false, err
	}
	if err := h.acquire(ctx); err != nil {
		return false, err
	}
	defer h.release()

	key := p.key(password, salt, uint32(len(want)))
	return subtle.ConstantTimeCompare(key, want) == 1 && known, nil
}

func (h *Hasher) acquire(ctx context.Context) error {
	if h.waiting.Add(1) > h.maxWaiting {
		h.waiting.Add(-1)
		return ErrBusy
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	if err := h.turns.Acquire(ctx, 1); err != nil {
		h.waiting.Add(-1)
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return nil
}

func (h *Hasher) release() {
	h.turns.Release(1)
	h.waiting.Add(-1)
}

// params are the cost parameters of a hash.
type params struct {
	memoryKiB uint32
	passes    uint32
	lanes     uint8
}

func (p params) key(password string, salt []byte, length uint32) []byte {
	return argon2.IDKey([]byte(password), salt, p.passes, p.memoryKiB, p.lanes, length)
}

var b64 = base64.RawStdEncoding.Strict()

// encode writes a hash as a PHC string.
func encode(p params, salt, key []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, p.memoryKiB, p.passes, p.lanes, b64.EncodeToString(salt), b64.EncodeToString(key))
}

// decode reads what encode has written, with any parameters within the limits.
func decode(hash string) (p params, salt, key []byte, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, nil, nil, ErrBadHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memoryKiB, &p.passes, &p.lanes); err != nil {
		return p, nil, nil, ErrBadHash
	}
	if p.memoryKiB > maxMemoryKiB || p.passes < 1 || p.passes > maxPasses || p.lanes < 1 || p.lanes > maxLanes {
		return p, nil, nil, ErrBadHash
	}
	salt, saltErr := b64.DecodeString(parts[4])
	key, keyErr := b64.DecodeString(parts[5])
	if saltErr != nil || keyErr != nil || len(key) < saltBytes || len(key) > maxKeyBytes {
		return p, nil, nil, ErrBadHash
	}
	return p, salt, key, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: see crypto/rand
	return b
}
