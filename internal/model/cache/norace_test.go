//go:build !race

package cachemodel_test

const raceEnabled = false
