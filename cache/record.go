package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A record in Redis, as scripts/record.lua says. A hit is a plain GET of it.
const (
	recordVersion = 1
	recordValue   = 1
	recordHeader  = 26
	valueHeader   = 34 // asOf, soft, hard, schema, flags, load time, number of tags

	flagNegative = 1 << 0
	flagZstd     = 1 << 1

	// maxTags bounds a value's.
	maxTags = 16
	// tagSlots is how many numbers there are for all tags: those that share one are
	// invalidated together. Guess: few applications invalidate thousands of tags within the life of
	// a value.
	tagSlots = 1 << 14
	slotSize = 16
)

var errRecord = errors.New("cache: not a record of this version")

// value is what a record holds, still encoded.
type value struct {
	asOf       uint64 // number of the last announcement before its lease
	soft, hard int64  // ms, by Redis's clock
	schema     uint32
	negative   bool
	zstd       bool
	delta      uint32 // ms that loading it took
	slots      []uint16
	payload    []byte
}

// parseRecord returns nil when the record has no value.
func parseRecord(b []byte) (*value, error) {
	switch {
	case len(b) < recordHeader || b[0] != recordVersion:
		return nil, errRecord
	case b[1]&recordValue == 0:
		return nil, nil
	}
	b = b[recordHeader:]
	if len(b) < valueHeader {
		return nil, fmt.Errorf("%w: a value of %d bytes", errRecord, len(b))
	}
	v := &value{
		asOf: binary.BigEndian.Uint64(b), soft: int64(binary.BigEndian.Uint64(b[8:])), hard: int64(binary.BigEndian.Uint64(b[16:])),
		schema: binary.BigEndian.Uint32(b[24:]), negative: b[28]&flagNegative != 0, zstd: b[28]&flagZstd != 0, delta: binary.BigEndian.Uint32(b[29:]),
	}
	tags := int(b[33])
	b = b[valueHeader:]
	if len(b) < 2*tags {
		return nil, fmt.Errorf("%w: %d tags in %d bytes", errRecord, tags, len(b))
	}
	for i := range tags {
		v.slots = append(v.slots, binary.BigEndian.Uint16(b[2*i:]))
	}
	v.payload = b[2*tags:]
	return v, nil
}

// appendRest appends what a value has after its times: what set is given whole.
func (v *value) appendRest(b []byte) []byte {
	flags := byte(0)
	if v.negative {
		flags |= flagNegative
	}
	if v.zstd {
		flags |= flagZstd
	}
	b = binary.BigEndian.AppendUint32(b, v.schema)
	b = append(b, flags)
	b = binary.BigEndian.AppendUint32(b, v.delta)
	b = append(b, byte(len(v.slots)))
	for _, slot := range v.slots {
		b = binary.BigEndian.AppendUint16(b, slot)
	}
	return append(b, v.payload...)
}

func bytes8(n uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return string(b[:])
}
