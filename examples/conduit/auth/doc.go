// Package auth proves who a user is: by a password at login, by a signed token
// at every later request.
//
// Hasher stores passwords as Argon2id hashes and bounds how many are computed
// at a time, since each takes 19 MiB and tens of milliseconds of a processor.
// Tokens issues and checks JSON Web Tokens.
//
// Tokens are not kept anywhere: they cannot be withdrawn before they expire,
// not even by a new password.
package auth
