package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"
)

// setText sets v, which is of a type that isScalar knows, to what the text says.
func setText(v reflect.Value, text string, secret bool) error {
	var err error
	switch {
	case isDuration(v.Type()):
		var d time.Duration
		if d, err = time.ParseDuration(text); err == nil {
			v.SetInt(int64(d))
		} else if _, number := strconv.ParseFloat(text, 64); number == nil {
			return fmt.Errorf("is %s, a number without a unit: a duration has a unit: 2s, 500ms, 5m", shown(text, secret))
		}
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		// Two spellings, as in the file: what else ParseBool takes is a way to be misread.
		if text != "true" && text != "false" {
			err = strconv.ErrSyntax
		} else {
			v.SetBool(text == "true")
		}
	case v.CanInt():
		var i int64
		if i, err = strconv.ParseInt(text, 10, v.Type().Bits()); err == nil {
			v.SetInt(i)
		}
	case v.CanUint():
		var u uint64
		if u, err = strconv.ParseUint(text, 10, v.Type().Bits()); err == nil {
			v.SetUint(u)
		}
	case v.CanFloat():
		var f float64
		if f, err = strconv.ParseFloat(text, 64); err == nil {
			v.SetFloat(f)
		}
	}
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("is %s, which is out of range for %s", shown(text, secret), expected(v.Type()))
	case err != nil:
		return fmt.Errorf("is %s where %s is expected", shown(text, secret), expected(v.Type()))
	}
	return nil
}

// expected says what a value of the type looks like.
func expected(t reflect.Type) string {
	switch {
	case isDuration(t):
		return "a duration, such as 2s or 500ms,"
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	default:
		return "a whole number"
	}
}

// maxShown bounds how much of a value an error quotes.
const maxShown = 40

func shown(text string, secret bool) string {
	if secret {
		return redacted
	}
	text = Redact(text)
	if utf8.RuneCountInString(text) > maxShown {
		text = string([]rune(text)[:maxShown]) + "…"
	}
	return strconv.Quote(text)
}
