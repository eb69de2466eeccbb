package seed

import (
	"iter"
	"math"
	"math/big"
	"math/rand/v2"
)

// skew says how unequally something is spread over a population: who takes
// part at all, and how much the value varies among those. The values are
// lognormal, which has a property that this package lives on: drawn in
// proportion to their value, they are lognormal again, shifted by sigma. So
// one draw takes one normal number and no table, whatever the population.
//
// The numbers are fitted to the shares of the top 1 % and 10 % that were
// measured on the real site; TestSkew compares.
type skew struct {
	active float64 // the part of the population that takes part
	sigma  float64 // of the logarithm of the values
}

// size returns how many of n take part: the ranks below it.
func (s skew) size(n int) int { return int(math.Round(s.active * float64(n))) }

// draw returns a rank among n in proportion to its value. Rank 0 is the top.
func (s skew) draw(r *rand.Rand, n int) int {
	above := math.Erfc((r.NormFloat64()+s.sigma)/math.Sqrt2) / 2 // the part of the ranks above
	size := s.size(n)
	return min(int(above*float64(size)), size-1)
}

// drawOther is draw, but returns a rank that is not taken. One that is makes
// way for the next below it, so the draw ends however unequal the values are;
// at least one rank must be free.
func (s skew) drawOther(r *rand.Rand, n int, taken func(rank int) bool) int {
	rank := s.draw(r, n)
	for taken(rank) {
		rank = (rank + 1) % s.size(n)
	}
	return rank
}

func (s skew) value(rank, size int) float64 {
	return math.Exp(s.sigma * math.Sqrt2 * math.Erfcinv((2*float64(rank)+1)/float64(size)))
}

// allot splits total among those of a population that take part, at least one
// to each, and yields their indexes in ascending order with their parts. The
// parts add up to total.
func (s skew) allot(total int, ranks permutation) iter.Seq2[int, int] {
	size := s.size(ranks.n)
	return func(yield func(int, int) bool) {
		var sum float64
		for i := range ranks.n {
			if rank := ranks.rank(i); rank < size {
				sum += s.value(rank, size)
			}
		}
		// What is left after one for each goes by value. Rounding the running
		// sum, and not each part, keeps the total exact.
		var running float64
		given, rest := 0, float64(total-size)
		for i := range ranks.n {
			rank := ranks.rank(i)
			if rank >= size {
				continue
			}
			running += s.value(rank, size)
			upTo := int(math.Round(rest * running / sum))
			if !yield(i, 1+upTo-given) {
				return
			}
			given = upTo
		}
	}
}

// permutation scatters the ranks 0 … n-1 over as many indexes, so that being
// popular has nothing to do with being old. It is a walk around a circle in
// steps that have no factor in common with n, which needs no table.
type permutation struct {
	n, step, back int
}

// newPermutation takes steps of about ratio × n.
func newPermutation(n int, ratio float64) permutation {
	step := max(int(ratio*float64(n)), 1)
	for gcd(step, n) != 1 {
		step++
	}
	inverse := new(big.Int).ModInverse(big.NewInt(int64(step)), big.NewInt(int64(n)))
	return permutation{n: n, step: step, back: int(inverse.Int64())}
}

// index returns where a rank is; the walk starts with a step, so that the top
// is not always the first.
func (p permutation) index(rank int) int { return (rank + 1) * p.step % p.n }

// rank returns the rank at an index.
func (p permutation) rank(index int) int { return (index*p.back + p.n - 1) % p.n }

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
