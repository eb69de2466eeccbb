package sqldb

import (
	"bytes"
	"database/sql/driver"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// rows turn what pgx has read into the few types of database/sql, as pgx's own driver
// does: int64, float64, bool, []byte, string, time.Time. What is none of these is its
// text, except an anonymous record, which is in its binary form.
type rows struct {
	pgx.Rows
	types *pgtype.Map
	// first is there when the first row has been asked for already.
	first, has bool
}

var (
	_ driver.RowsColumnTypeDatabaseTypeName = (*rows)(nil)
	_ driver.RowsColumnTypeScanType         = (*rows)(nil)
)

// newRows asks for the first row, so that a statement that fails does so now.
func newRows(r pgx.Rows) (*rows, error) {
	types := r.TypeMap()
	if types == nil {
		types = pgtype.NewMap()
	}
	new := &rows{Rows: r, types: types, first: true}
	if new.has = r.Next(); !new.has {
		r.Close()
		if err := r.Err(); err != nil {
			return nil, err
		}
	}
	return new, nil
}

func (r *rows) Columns() []string {
	fields := r.FieldDescriptions()
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].Name
	}
	return names
}

// Close returns what went wrong with the rest: a write is committed here.
func (r *rows) Close() error {
	r.Rows.Close()
	return r.Err()
}

func (r *rows) Next(dest []driver.Value) error {
	more := r.has
	if r.first {
		r.first = false
	} else {
		more = r.Rows.Next()
	}
	if !more {
		if err := r.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	for i, raw := range r.RawValues() {
		if raw == nil {
			dest[i] = nil
			continue
		}
		var err error
		if dest[i], err = r.value(&r.FieldDescriptions()[i], raw); err != nil {
			return fmt.Errorf("sqldb: column %q: %w", r.FieldDescriptions()[i].Name, err)
		}
	}
	return nil
}

func (r *rows) value(field *pgconn.FieldDescription, raw []byte) (driver.Value, error) {
	t, known := r.types.TypeForOID(field.DataTypeOID)
	if !known {
		if field.Format == pgtype.TextFormatCode {
			return string(raw), nil
		}
		return bytes.Clone(raw), nil
	}
	if decode := nested(t, field.DataTypeOID); decode != nil && field.Format == pgtype.BinaryFormatCode {
		return decode(r.types, field.DataTypeOID, raw)
	}
	return t.Codec.DecodeDatabaseSQLValue(r.types, field.DataTypeOID, field.Format, raw)
}

type decoder func(types *pgtype.Map, oid uint32, raw []byte) (driver.Value, error)

// nested decodes what pgx's codec would give in its binary form, which nobody can scan.
// A statement that writes cannot ask for text: its results come as pgx prefers.
func nested(t *pgtype.Type, oid uint32) decoder {
	if _, ok := t.Codec.(*pgtype.ArrayCodec); ok {
		return asText[pgtype.Array[any]]
	}
	switch oid {
	case pgtype.Int4rangeOID:
		return asText[pgtype.Range[pgtype.Int4]]
	case pgtype.Int8rangeOID:
		return asText[pgtype.Range[pgtype.Int8]]
	case pgtype.NumrangeOID:
		return asText[pgtype.Range[pgtype.Numeric]]
	case pgtype.DaterangeOID:
		return asText[pgtype.Range[pgtype.Date]]
	case pgtype.TsrangeOID:
		return asText[pgtype.Range[pgtype.Timestamp]]
	case pgtype.TstzrangeOID:
		return asText[pgtype.Range[pgtype.Timestamptz]]
	case pgtype.Int4multirangeOID:
		return asText[pgtype.Multirange[pgtype.Range[pgtype.Int4]]]
	case pgtype.Int8multirangeOID:
		return asText[pgtype.Multirange[pgtype.Range[pgtype.Int8]]]
	case pgtype.NummultirangeOID:
		return asText[pgtype.Multirange[pgtype.Range[pgtype.Numeric]]]
	case pgtype.DatemultirangeOID:
		return asText[pgtype.Multirange[pgtype.Range[pgtype.Date]]]
	case pgtype.TsmultirangeOID:
		return asText[pgtype.Multirange[pgtype.Range[pgtype.Timestamp]]]
	case pgtype.TstzmultirangeOID:
		return asText[pgtype.Multirange[pgtype.Range[pgtype.Timestamptz]]]
	}
	return nil
}

func asText[T any](types *pgtype.Map, oid uint32, raw []byte) (driver.Value, error) {
	var value T
	if err := types.Scan(oid, pgtype.BinaryFormatCode, raw, &value); err != nil {
		return nil, err
	}
	text, err := types.Encode(oid, pgtype.TextFormatCode, value, nil)
	return string(text), err
}

func (r *rows) ColumnTypeDatabaseTypeName(i int) string {
	if t, ok := r.types.TypeForOID(r.FieldDescriptions()[i].DataTypeOID); ok {
		return strings.ToUpper(t.Name)
	}
	return ""
}

func (r *rows) ColumnTypeScanType(i int) reflect.Type {
	switch r.FieldDescriptions()[i].DataTypeOID {
	case pgtype.BoolOID:
		return reflect.TypeFor[bool]()
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		return reflect.TypeFor[int64]()
	case pgtype.Float4OID, pgtype.Float8OID:
		return reflect.TypeFor[float64]()
	case pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return reflect.TypeFor[time.Time]()
	case pgtype.ByteaOID:
		return reflect.TypeFor[[]byte]()
	}
	return reflect.TypeFor[string]()
}
