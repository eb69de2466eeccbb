package edge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// MaxStatic bounds all files of a [Static] together, which are held in memory, in bytes.
const MaxStatic = 256 << 20

// Static serves files that do not change while the program runs, such as those of an embed.FS. Under the name that
// [Static.Path] gives a file, which has a hash of what is in it, caches keep it for ever; under its own they ask each time.
// Where there is name.br or name.gz, that is sent to who takes it.
type Static struct {
	byName map[string]*file
	hashed map[string]*file
}

// file is one, in up to three encodings.
type file struct {
	path    string // with the hash
	typ     string
	etag    string
	content []byte
	encoded map[string][]byte
}

// encodings in the order of preference, and how their files end.
var encodings = [...]struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// NewStatic reads all files.
func NewStatic(files fs.FS) (*Static, error) {
	s := &Static{make(map[string]*file), make(map[string]*file)}
	size := 0
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if size += len(content); size > MaxStatic {
			return fmt.Errorf("edge: the files of NewStatic have more than %d bytes, which would be held in memory", MaxStatic)
		}
		sum := sha256.Sum256(content)
		hash := hex.EncodeToString(sum[:8])
		f := &file{path: withHash(name, hash), typ: mime.TypeByExtension(path.Ext(name)), etag: hash, content: content, encoded: make(map[string][]byte)}
		if f.typ == "" {
			f.typ = http.DetectContentType(content)
		}
		s.byName[name] = f
		return nil
	})
	if err != nil {
		return nil, err
	}
	for name, f := range s.byName {
		for _, e := range encodings {
			if packed, ok := s.byName[name+e.suffix]; ok {
				f.encoded[e.name] = packed.content
			}
		}
		s.hashed[f.path] = f
	}
	return s, nil
}

// withHash is app.0123456789abcdef.js of app.js.
func withHash(name, hash string) string {
	ext := path.Ext(name)
	return strings.TrimSuffix(name, ext) + "." + hash + ext
}

// Path returns the path that caches keep, relative to where the handler is mounted, for pages to link; of a file that is not
// there, its name.
func (s *Static) Path(name string) string {
	if f, ok := s.byName[strings.TrimPrefix(name, "/")]; ok {
		return f.path
	}
	return name
}

// ServeHTTP implements http.Handler, for the request's path, which http.StripPrefix may have shortened.
func (s *Static) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		WriteProblem(w, &Problem{Status: http.StatusMethodNotAllowed})
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	h := w.Header()
	f, forever := s.hashed[name]
	if forever {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		if f = s.byName[name]; f == nil {
			f = s.byName[path.Join(name, "index.html")]
		}
		if f == nil {
			WriteProblem(w, &Problem{Status: http.StatusNotFound})
			return
		}
		h.Set("Cache-Control", "public, no-cache")
	}
	content, etag := f.content, f.etag
	if len(f.encoded) > 0 {
		addVary(h, "Accept-Encoding")
		for _, e := range encodings {
			if packed, ok := f.encoded[e.name]; ok && accepts(r.Header["Accept-Encoding"], e.name) {
				content, etag = packed, etag+"-"+e.name
				h.Set("Content-Encoding", e.name)
				break
			}
		}
	}
	h.Set("Content-Type", f.typ)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// accepts is RFC 9110, section 12.5.3, without preference among those with a weight.
func accepts(lines []string, encoding string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			name, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
			if !strings.EqualFold(strings.TrimSpace(name), encoding) {
				continue
			}
			q, ok := strings.CutPrefix(strings.TrimSpace(weight), "q=")
			value, err := strconv.ParseFloat(q, 64)
			return !ok || err == nil && value > 0
		}
	}
	return false
}
