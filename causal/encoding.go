package causal

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// MaxSize bounds what is parsed, signature included, in bytes.
const MaxSize = 512

// The text is base64url without padding of: version, flags, number of marks, and per
// mark eight bytes of system identifier, big-endian, and four varints as Protocol
// Buffers have them: timeline, LSN, epoch, number. There is one form per token only:
// marks are in order, varints as short as they can be, the epoch of number 0 is 0.
const (
	version        = 1
	flagIncomplete = 1 << 0
)

// ErrToken is a token that was not made by [Token.MarshalText] or [Keys.Sign].
var ErrToken = errors.New("causal: not a token")

var encoding = base64.RawURLEncoding.Strict()

// decodeText is there because Strict still passes over CR and LF, so that one token
// would have many texts.
func decodeText(text string) ([]byte, error) {
	if i := strings.IndexAny(text, "\r\n"); i >= 0 {
		return nil, base64.CorruptInputError(i)
	}
	return encoding.DecodeString(text)
}

// String is the text of the token, unsigned, for places that only our own programs
// write to; see [Keys.Sign] for all others. The zero token has the empty text.
func (t Token) String() string {
	text, _ := t.MarshalText()
	return string(text)
}

// MarshalText returns the text of [Token.String]. The error is always nil.
func (t Token) MarshalText() ([]byte, error) { return t.AppendText(nil) }

// AppendText appends the text of [Token.String] to b. The error is always nil.
func (t Token) AppendText(b []byte) ([]byte, error) {
	if t.IsZero() {
		return b, nil
	}
	var space [MaxSize]byte
	body := append(space[:0], version, 0, byte(len(t.marks)))
	if t.incomplete {
		body[1] |= flagIncomplete
	}
	for _, m := range t.marks {
		body = binary.BigEndian.AppendUint64(body, m.System)
		for _, n := range [...]uint64{uint64(m.Timeline), uint64(m.LSN), m.Epoch, m.Number} {
			body = binary.AppendUvarint(body, n)
		}
	}
	return encoding.AppendEncode(b, body), nil
}

// Parse reads the text of [Token.String]. Its errors are [ErrToken]; a text that it
// takes is that of the token it returns.
func Parse(text string) (Token, error) {
	if text == "" {
		return Token{}, nil
	}
	if len(text) > MaxSize {
		return Token{}, fmt.Errorf("%w: %d bytes are more than %d", ErrToken, len(text), MaxSize)
	}
	body, err := decodeText(text)
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	t, err := decode(body)
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return t, nil
}

// UnmarshalText is [Parse].
func (t *Token) UnmarshalText(text []byte) error {
	if len(text) > MaxSize { // before it is copied
		return fmt.Errorf("%w: %d bytes are more than %d", ErrToken, len(text), MaxSize)
	}
	parsed, err := Parse(string(text))
	if err == nil {
		*t = parsed
	}
	return err
}

func decode(body []byte) (Token, error) {
	if len(body) < 3 {
		return Token{}, errors.New("too short")
	}
	if body[0] != version {
		return Token{}, fmt.Errorf("version %d is not known", body[0])
	}
	if body[1] > flagIncomplete {
		return Token{}, fmt.Errorf("flags %#x are not known", body[1])
	}
	t := Token{incomplete: body[1] == flagIncomplete}
	count := int(body[2])
	if count > MaxMarks {
		return Token{}, fmt.Errorf("%d marks are more than %d", count, MaxMarks)
	}
	if t.marks = make([]Mark, 0, count); count == 0 {
		t.marks = nil
	}
	body = body[3:]
	for range count {
		m, rest, err := decodeMark(body)
		if err != nil {
			return Token{}, err
		}
		if n := len(t.marks); n > 0 && t.marks[n-1].compare(m) >= 0 {
			return Token{}, errors.New("marks are not in order")
		}
		t.marks, body = append(t.marks, m), rest
	}
	if len(body) > 0 {
		return Token{}, errors.New("too long")
	}
	if t.IsZero() {
		return Token{}, errors.New("nothing is the empty text")
	}
	return t, nil
}

func decodeMark(b []byte) (Mark, []byte, error) {
	if len(b) < 8 {
		return Mark{}, nil, errors.New("too short")
	}
	m := Mark{System: binary.BigEndian.Uint64(b)}
	b = b[8:]
	var numbers [4]uint64
	for i := range numbers {
		n, size := binary.Uvarint(b)
		if size <= 0 || size > 1 && b[size-1] == 0 {
			return Mark{}, nil, errors.New("a number is cut off, too large, or longer than it need be")
		}
		numbers[i], b = n, b[size:]
	}
	if numbers[0] > math.MaxUint32 {
		return Mark{}, nil, errors.New("the timeline is too large")
	}
	m.Timeline, m.LSN, m.Epoch, m.Number = uint32(numbers[0]), LSN(numbers[1]), numbers[2], numbers[3]
	if m.LSN == 0 {
		return Mark{}, nil, errors.New("a mark has no position")
	}
	if m.Number == 0 && m.Epoch != 0 {
		return Mark{}, nil, errors.New("a mark has an epoch without a number")
	}
	return m, b, nil
}
