package seed

// Password is that of every seeded user.
const Password = "conduit-demo"

// passwordHash is the hash of Password, by the same parameters as package auth
// uses. It is shared, salt and all: hashing for each user would take hours at
// the larger scales, and the password is public anyway.
const passwordHash = "$argon2id$v=19$m=19456,t=2,p=1$Y29uZHVpdC1kZW1vc2FsdA$4zslpNc/bR92dlgKR0uzbi8wBvPPzn5rExWZ25jPO10"
