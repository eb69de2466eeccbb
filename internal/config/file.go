package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
)

const (
	// MaxFileBytes is far more than anybody writes by hand.
	MaxFileBytes = 1 << 20
	// maxTokens bounds what MaxFileBytes does not: the parser recurses, and its time
	// grows with the square of the number of keys in a mapping (1 s for the 44,000
	// tokens of 64 KiB of "a:\n"). It is some 2,500 keys, and a tenth of a second.
	maxTokens = 10_000
)

// readFile returns the content of the file, and whether there is one.
func readFile(path string, optional bool) (body []byte, found bool, err error) {
	whole := Origin{File: path}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if optional {
			return nil, false, nil
		}
		return nil, false, &Error{Origin: whole, Problem: "there is no such file; name one that exists, or none to have " + DefaultFile + " where there is one"}
	}
	if err != nil {
		return nil, false, fmt.Errorf("configuration: %w", err)
	}
	defer file.Close()
	body, err = io.ReadAll(io.LimitReader(file, MaxFileBytes+1))
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("configuration: %w", err)
	case len(body) > MaxFileBytes:
		return nil, false, &Error{Origin: whole, Problem: fmt.Sprintf("is larger than %d bytes: is it a configuration?", MaxFileBytes)}
	}
	return body, true, nil
}

// parse returns the root of the file's only document, nil when it is empty. It
// reports what is wrong with the syntax, and with what we do not want of YAML.
func (l *loader) parse(body []byte) ast.Node {
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // as some editors begin a file
	if at := invalidUTF8(body); at >= 0 {
		line := 1 + bytes.Count(body[:at], []byte("\n"))
		column := 1 + utf8.RuneCount(body[bytes.LastIndexByte(body[:at], '\n')+1:at])
		l.fail(l.root, Origin{File: l.file, Line: line, Column: column}, "is not valid UTF-8")
		return nil
	}
	file, err := parseYAML(string(body))
	if syntax, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		l.fail(l.root, l.at(syntax.Token.Position), "%s", withoutQuotes(syntax.Message))
		return nil
	}
	if err != nil {
		l.fail(l.root, Origin{File: l.file}, "%v", err)
		return nil
	}
	var root ast.Node
	for _, document := range file.Docs {
		switch {
		case document.Body == nil:
		case root == nil:
			root = document.Body
		default:
			l.fail(l.root, l.position(document.Body), "a second document begins: a configuration is one")
		}
	}
	l.checkTree(root)
	return root
}

func parseYAML(body string) (file *ast.File, err error) {
	defer func() {
		// Nothing known; but a parser of such size is not ours to vouch for.
		if recover() != nil {
			file, err = nil, errors.New("is not YAML that can be understood")
		}
	}()
	tokens := lexer.Tokenize(body)
	if len(tokens) > maxTokens {
		return nil, fmt.Errorf("has more than %d words and signs: is it a configuration?", maxTokens)
	}
	// Repeated keys are for us to find: all of them, and not only the first.
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// checkTree reports repeated keys, and what would let a value be written in another
// place than where it is read: anchors, aliases (which can multiply, too), merges
// and tags. Like that, a value is where the key is.
func (l *loader) checkTree(y ast.Node) {
	refuse := func(what string) {
		l.fail(l.root, l.position(y), "%s: this file has none; write the value itself", what)
	}
	switch y := y.(type) {
	case *ast.MappingNode:
		first := make(map[string]Origin, len(y.Values))
		for _, pair := range y.Values {
			l.checkTree(pair.Key)
			l.checkTree(pair.Value)
			name, at := keyName(pair.Key), l.position(pair.Key)
			if before, repeated := first[name]; repeated && name != "" {
				l.fail(l.root, at, "%q is here for the second time; the first is in line %d", name, before.Line)
				continue
			}
			first[name] = at
		}
	case *ast.SequenceNode:
		for _, value := range y.Values {
			l.checkTree(value)
		}
	case *ast.AnchorNode:
		refuse("an anchor")
	case *ast.AliasNode:
		refuse("an alias")
	case *ast.TagNode:
		refuse("a tag")
	case *ast.MergeKeyNode:
		refuse("a merge key")
	case *ast.MappingKeyNode:
		refuse("a key that begins with a question mark")
	}
}

// keyName returns the name of a mapping's key, empty when it is not a plain one.
func keyName(key ast.MapKeyNode) string {
	if s, ok := key.(*ast.StringNode); ok {
		return s.Value
	}
	return ""
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8; -1 for none.
func invalidUTF8(body []byte) int {
	for at := 0; at < len(body); {
		r, size := utf8.DecodeRune(body[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

var quoted = regexp.MustCompile(`(?s)"(.*)"`)

// withoutQuotes takes out what a message of the parser quotes from the file: it may
// be a secret.
func withoutQuotes(message string) string {
	return strings.ReplaceAll(quoted.ReplaceAllString(message, "…"), "\t", `\t`)
}
