package config

import "strings"

// nearest returns the name that was probably meant; empty when none is near.
func nearest(name string, names []string) string {
	best, least := "", max(1, len(name)/3)+1
	for _, candidate := range names {
		if d := distance(plain(name), plain(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// plain is a name without its style: pool_max, pool-max and poolMax are the same.
func plain(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(name))
}

// maxDistanceLen bounds the work: no key is as long.
const maxDistanceLen = 64

// distance is Levenshtein's: how many letters to insert, delete or change.
func distance(a, b string) int {
	if len(a) > maxDistanceLen || len(b) > maxDistanceLen {
		return maxDistanceLen
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
