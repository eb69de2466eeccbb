package realtime

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

//go:embed js/realtime.js
var moduleSource string

// module is the browser's, without comments and margins: plain, compressed, and its tag.
var module = sync.OnceValues(func() (forms [2][]byte, tag string) {
	var plain strings.Builder
	for line := range strings.Lines(moduleSource) {
		if line = strings.TrimLeft(line, " "); !strings.HasPrefix(line, "//") && !strings.HasPrefix(line, "/**") && line != "\n" {
			plain.WriteString(line)
		}
	}
	var compressed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&compressed, gzip.BestCompression) // the level is one
	_, _ = w.Write([]byte(plain.String()))
	_ = w.Close()
	return [2][]byte{[]byte(plain.String()), compressed.Bytes()}, fmt.Sprintf("%x", sha256.Sum256([]byte(moduleSource)))[:16]
})

func script(w http.ResponseWriter, r *http.Request) {
	forms, tag := module()
	h, body := w.Header(), forms[0]
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		tag, body = tag+"-gzip", forms[1]
	}
	h.Set("ETag", `"`+tag+`"`)
	if strings.Contains(r.Header.Get("If-None-Match"), `"`+tag+`"`) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(body)
}
