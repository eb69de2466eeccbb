package contract

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/router"
)

//go:embed openapi.yml
var openapi []byte

//go:embed additions.yml
var additions []byte

// contentType is what every answer with a body must say. The OpenAPI file asks
// for application/json, the prose of the RealWorld project for the charset too.
const contentType = "application/json; charset=utf-8"

// spec validates answers against the OpenAPI file and notes what was seen.
type spec struct {
	server    *url.URL
	router    router.Router
	validator validator.Validator
	// documented holds each operation ("GET /articles/{slug}") with its statuses.
	documented map[string][]int

	mu   sync.Mutex
	seen map[string]map[int]bool
}

func newSpec(file []byte) (*spec, error) {
	doc, err := libopenapi.NewDocument(file)
	if err != nil {
		return nil, fmt.Errorf("contract: parse the OpenAPI file: %w", err)
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		return nil, fmt.Errorf("contract: build the model of the OpenAPI file: %w", err)
	}
	server, err := url.Parse(model.Model.Servers[0].URL)
	if err != nil {
		return nil, fmt.Errorf("contract: server of the OpenAPI file: %w", err)
	}

	documented := make(map[string][]int)
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		for method, operation := range item.GetOperations().FromOldest() {
			name := strings.ToUpper(method) + " " + path
			for code := range operation.Responses.Codes.KeysFromOldest() {
				status, err := strconv.Atoi(code)
				if err != nil {
					return nil, fmt.Errorf("contract: status %q of %s: %w", code, name, err)
				}
				documented[name] = append(documented[name], status)
			}
			slices.Sort(documented[name])
		}
	}

	return &spec{
		server: server,
		router: router.NewRouter(&model.Model),
		// The strict mode also rejects fields that the file does not declare:
		// a body in a list, a password hash in a user. The keys of an error are
		// free, which this mode does not see.
		validator: validator.NewValidatorFromV3Model(&model.Model, config.WithFormatAssertions(),
			config.WithStrictMode(), config.WithStrictIgnorePaths("$.body.errors.*")),
		documented: documented,
		seen:       make(map[string]map[int]bool),
	}, nil
}

// check returns what in an answer breaks the contract, or nil. The target is
// the path and query below the base path of the API.
func (s *spec) check(method, target string, status int, header http.Header, body []byte) error {
	// The file knows its operations by its own server address, so that is what
	// the validator must see, wherever the request went.
	u, err := url.Parse(s.server.String() + target)
	if err != nil {
		return fmt.Errorf("contract: address of %s %s: %w", method, target, err)
	}
	request := &http.Request{Method: method, URL: u, Host: u.Host, Header: http.Header{}}
	route, err := s.router.FindRoute(request)
	if err != nil {
		return fmt.Errorf("the OpenAPI file has no operation for %s %s: %w", method, target, err)
	}
	s.note(method+" "+route.Path, status)

	// The strict mode would reject every undocumented header (Vary, request
	// ids), and the file documents none; only the content type counts.
	response := &http.Response{
		StatusCode: status,
		Header:     http.Header{"Content-Type": header.Values("Content-Type")},
		Body:       io.NopCloser(bytes.NewReader(body)),
	}
	_, invalid := s.validator.ValidateHttpResponse(request, response)
	var faults []error
	for _, fault := range invalid {
		faults = append(faults, fmt.Errorf("%s: %s", fault.Message, fault.Reason))
		for _, detail := range fault.SchemaValidationErrors {
			faults = append(faults, fmt.Errorf("  %s: %s", detail.FieldPath, detail.Reason))
		}
	}
	return errors.Join(append(faults, checkEnvelope(status, header, body))...)
}

// checkEnvelope checks what the OpenAPI file cannot say or its validator lets
// pass, and what holds for routes outside the file too.
func checkEnvelope(status int, header http.Header, body []byte) error {
	if status == http.StatusNoContent {
		return nil // HTTP itself has no body here (RFC 9110, section 15.3.5).
	}
	if got := header.Get("Content-Type"); got != contentType {
		return fmt.Errorf("Content-Type is %q, wanted %q", got, contentType)
	}
	if text := bytes.TrimSpace(body); len(text) == 0 || bytes.Equal(text, []byte("null")) {
		return fmt.Errorf("the body is %q", text)
	}
	if status < 400 {
		return nil
	}
	var failure struct {
		Errors map[string][]string `json:"errors"`
	}
	if err := json.Unmarshal(body, &failure); err != nil {
		return fmt.Errorf(`the body is not {"errors": {"<key>": ["<message>"]}}: %w`, err)
	}
	if len(failure.Errors) == 0 {
		return errors.New("the error names no field or resource")
	}
	for key, messages := range failure.Errors {
		if len(messages) == 0 || slices.Contains(messages, "") {
			return fmt.Errorf("the error for %q has no message", key)
		}
	}
	return nil
}

func (s *spec) note(operation string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[operation] == nil {
		s.seen[operation] = make(map[int]bool)
	}
	s.seen[operation][status] = true
}

// unseen lists the documented statuses that no answer had, except the excused.
func (s *spec) unseen(excused map[string]string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var missing []string
	for operation, statuses := range s.documented {
		for _, status := range statuses {
			name := fmt.Sprintf("%s %d", operation, status)
			if _, ok := excused[name]; !ok && !s.seen[operation][status] {
				missing = append(missing, name)
			}
		}
	}
	slices.Sort(missing)
	return missing
}
