package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// maxBodyBytes bounds the body of a request. The longest article that is
// accepted fits, unless it is all escapes or four-byte characters.
const maxBodyBytes = 1 << 20

// read decodes the object under the key of the request's body, as in
// {"article": {...}}. Fields that T does not have are ignored. It returns a
// conduit.Invalid when the body does not fit.
func read[T any](w http.ResponseWriter, r *http.Request, key string) (T, error) {
	var object T
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		w.Header().Set("Connection", "close") // rather than read the rest
		return object, invalid("body", fmt.Sprintf("is too large (maximum is %d bytes)", maxBodyBytes))
	}
	if err != nil {
		return object, invalid("body", "cannot be read")
	}
	if !utf8.Valid(body) {
		return object, invalid("body", "is not UTF-8") // encoding/json would replace the bytes
	}
	var envelope map[string]json.RawMessage
	if err := json.Unmarshal(body, &envelope); err != nil {
		return object, invalid("body", badJSON(err))
	}
	if raw := envelope[key]; raw == nil || bytes.Equal(raw, []byte("null")) {
		return object, invalid(key, "can't be blank")
	}
	if err := json.Unmarshal(envelope[key], &object); err != nil {
		return object, invalid("body", badJSON(err))
	}
	return object, nil
}

func badJSON(err error) string {
	wrongType, ok := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case ok && wrongType.Field != "":
		return "has a wrong type of value in " + strconv.Quote(wrongType.Field)
	case ok:
		return "has a wrong type of value"
	}
	return "is not valid JSON"
}

func invalid(field, message string) conduit.Invalid {
	return conduit.Invalid{field: {message}}
}

// optional is a field that may be absent, which leaves value nil. A null is
// the zero value of T.
type optional[T any] struct {
	value *T
}

func (o *optional[T]) UnmarshalJSON(b []byte) error {
	o.value = new(T)
	return json.Unmarshal(b, o.value)
}

// tagList is a list of tags that may be absent but not null. It is nil when it
// is absent.
type tagList struct {
	optional[[]string]
}

func (t tagList) tags() ([]string, error) {
	if t.value == nil {
		return nil, nil
	}
	if *t.value == nil {
		return nil, invalid("tagList", "must be a list")
	}
	return *t.value, nil
}

// writeJSON answers with an object. It is encoded before the status is sent,
// so that nothing is sent by halves.
func writeJSON(w http.ResponseWriter, status int, object any) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // the type of the answer keeps browsers from reading it as HTML
	if err := encoder.Encode(object); err != nil {
		panic(fmt.Sprintf("httpapi: encode %T: %v", object, err)) // a type of ours that JSON does not know
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes()) // an error here means that the client has gone
}

// pathText returns a part of the path, or "", which names nothing, when
// the database could not have it.
func pathText(r *http.Request, name string) string {
	text := r.PathValue(name)
	if !conduit.ValidText(text) {
		return ""
	}
	return text
}
