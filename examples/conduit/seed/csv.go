package seed

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// maxFileBytes bounds a file after decompression, and with it a field: the
// largest one has 4 MB, and a few kilobytes could hold gigabytes.
const maxFileBytes = 16 << 20

// record is a line of a CSV file, and remembers the first value in it that
// cannot be read.
type record struct {
	columns map[string]int
	fields  []string
	err     error
}

func (r *record) fail(column string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", column, err)
	}
}

// text returns a value of a column that records was asked for.
func (r *record) text(column string) string { return r.fields[r.columns[column]] }

func (r *record) id(column string) int64 {
	id, err := strconv.ParseInt(r.text(column), 10, 64)
	switch {
	case err != nil:
		r.fail(column, err)
	case id < 1 || id > maxRealID:
		r.fail(column, fmt.Errorf("%d is not from 1 to %d", id, maxRealID))
	}
	return id
}

func (r *record) time(column, layout string) time.Time {
	t, err := time.Parse(layout, r.text(column))
	if err != nil {
		r.fail(column, err)
	}
	return t
}

// records yields the rows of a gzipped CSV file, made of its lines by the
// function, which may also report an error. Errors name the file and the line.
func records[T any](dir, name string, columns []string, row func(*record) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			yield(zero, fmt.Errorf("seed: %w", err))
			return
		}
		defer file.Close()
		fail := func(err error) { yield(zero, fmt.Errorf("seed: %s: %w", file.Name(), err)) }

		unzipped, err := gzip.NewReader(file)
		if err != nil {
			fail(err)
			return
		}
		reader := csv.NewReader(&limitedReader{from: unzipped, left: maxFileBytes})
		reader.ReuseRecord = true
		header, err := reader.Read()
		if err != nil {
			fail(fmt.Errorf("header: %w", err))
			return
		}
		r := &record{columns: map[string]int{}}
		for _, column := range columns {
			i := slices.Index(header, column)
			if i < 0 {
				fail(fmt.Errorf("header: no column %s", column))
				return
			}
			r.columns[column] = i
		}
		for {
			r.fields, err = reader.Read()
			if err == io.EOF {
				return
			}
			if err != nil {
				fail(err) // csv names the line
				return
			}
			value, err := row(r)
			if err := errors.Join(r.err, err); err != nil {
				line, _ := reader.FieldPos(0)
				fail(fmt.Errorf("line %d: %w", line, err))
				return
			}
			if !yield(value, nil) {
				return
			}
		}
	}
}

// limitedReader fails where io.LimitReader would pretend that the file ends.
type limitedReader struct {
	from io.Reader
	left int
}

func (l *limitedReader) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("longer than %d bytes", maxFileBytes)
	}
	n, err := l.from.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}
