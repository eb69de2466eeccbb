package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Codec turns values into bytes for Redis.
type Codec[V any] interface {
	Encode(V) ([]byte, error)
	Decode([]byte) (V, error)
}

// JSON is the codec of most.
type JSON[V any] struct{}

// Encode is json.Marshal.
func (JSON[V]) Encode(v V) ([]byte, error) { return json.Marshal(v) }

// Decode is json.Unmarshal.
func (JSON[V]) Decode(b []byte) (v V, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}

// Raw is for values that are bytes already.
type Raw struct{}

// Encode returns b.
func (Raw) Encode(b []byte) ([]byte, error) { return b, nil }

// Decode returns b.
func (Raw) Decode(b []byte) ([]byte, error) { return b, nil }

// DefaultCompressOver is a guess: below a kilobyte there is little to gain.
const DefaultCompressOver = 1 << 10

// maxDecoded bounds what a compressed value may become.
const maxDecoded = 64 << 20

var compression = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
})

var decompression = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxDecoded))
})

// pack compresses what is larger than a size, if that makes it smaller.
func compress(b []byte, over int) (packed []byte, zstd bool, err error) {
	if over < 0 || len(b) <= over {
		return b, false, nil
	}
	e, err := compression()
	if err != nil {
		return nil, false, err
	}
	if packed = e.EncodeAll(b, nil); len(packed) >= len(b) {
		return b, false, nil
	}
	return packed, true, nil
}

func decompress(b []byte) ([]byte, error) {
	d, err := decompression()
	if err != nil {
		return nil, err
	}
	return d.DecodeAll(b, nil)
}

// schemaOf is a number for the shape of a type and its codec: a program whose type has changed does not read
// what an older one has stored.
func schemaOf[V any](codec Codec[V], version string) uint32 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%T %s ", codec, version)
	writeShape(h.Write, reflect.TypeFor[V](), map[reflect.Type]bool{})
	return h.Sum32()
}

// writeShape writes names, types and tags of fields: what encoders go by.
func writeShape(write func([]byte) (int, error), t reflect.Type, seen map[reflect.Type]bool) {
	put := func(parts ...string) { _, _ = write([]byte(strings.Join(parts, " ") + ";")) }
	put(t.String(), t.Kind().String())
	if seen[t] {
		return
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		writeShape(write, t.Elem(), seen)
	case reflect.Map:
		writeShape(write, t.Key(), seen)
		writeShape(write, t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			put(f.Name, string(f.Tag))
			writeShape(write, f.Type, seen)
		}
	}
}

var errTooLarge = errors.New("cache: the value is larger than Config.MaxValueBytes")
