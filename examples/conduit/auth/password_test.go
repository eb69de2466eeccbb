package auth_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/examples/conduit/auth"
)

func TestPassword(t *testing.T) {
	t.Parallel()
	h := auth.NewHasher()
	hash, err := h.Hash(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("the hash is %s", hash)
	}
	again, err := h.Hash(t.Context(), "correct horse")
	if err != nil || again == hash {
		t.Errorf("a second hash is %s, %v", again, err)
	}
	for _, test := range []struct {
		name, hash, password string
		want                 bool
	}{
		{"right", hash, "correct horse", true},
		{"wrong", hash, "correct horsf", false},
		{"empty", hash, "", false},
		{"no such user", "", "correct horse", false},
		// Made by the reference implementation: echo -n password | argon2 somesalt -id -m 16 -t 2 -p 1 -l 32
		{"foreign", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got, err := h.Verify(t.Context(), test.hash, test.password); err != nil || got != test.want {
				t.Errorf("Verify = %v, %v", got, err)
			}
		})
	}
}

func TestBadHash(t *testing.T) {
	t.Parallel()
	const salt, key = "c29tZXNhbHQ", "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for name, hash := range map[string]string{
		"not PHC":         "secret",
		"other algorithm": "$argon2i$v=19$m=19456,t=2,p=1$" + salt + "$" + key,
		"other version":   "$argon2id$v=16$m=19456,t=2,p=1$" + salt + "$" + key,
		"too much memory": "$argon2id$v=19$m=4194304,t=2,p=1$" + salt + "$" + key,
		"too many passes": "$argon2id$v=19$m=19456,t=1000,p=1$" + salt + "$" + key,
		"no passes":       "$argon2id$v=19$m=19456,t=0,p=1$" + salt + "$" + key,
		"too many lanes":  "$argon2id$v=19$m=19456,t=2,p=255$" + salt + "$" + key,
		"lanes overflow":  "$argon2id$v=19$m=19456,t=2,p=257$" + salt + "$" + key,
		"short key":       "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$Y3Q",
		"long key":        "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$" + strings.Repeat("AAAA", 100),
		"not base64":      "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$????",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if ok, err := auth.NewHasher().Verify(t.Context(), hash, "password"); ok || !errors.Is(err, auth.ErrBadHash) {
				t.Errorf("Verify = %v, %v", ok, err)
			}
		})
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := auth.NewHasher()
	if _, err := h.Hash(ctx, "password"); !errors.Is(err, auth.ErrBusy) || !errors.Is(err, context.Canceled) {
		t.Errorf("Hash: %v", err)
	}
	if _, err := h.Verify(ctx, "", "password"); !errors.Is(err, auth.ErrBusy) {
		t.Errorf("Verify: %v", err)
	}
}
