package role

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// scramIterations is PostgreSQL's own number.
const scramIterations = 4096

// scramVerifier is what PostgreSQL keeps of a password. It is made here, so that the password never is in a statement:
// not in the server's log, not in its statistics, not on the way.
func scramVerifier(password string, salt []byte, iterations int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}

// roleVerifier is the verifier that apply sets: the same for the same password, role and database.
func roleVerifier(password, role, salt string) (string, error) {
	sum := sha256.Sum256([]byte("cryptoviz role " + salt + " " + role))
	return scramVerifier(password, sum[:16], scramIterations)
}

// verifies tells whether a verifier is one of a password, whatever client made it.
func verifies(verifier, password string) bool {
	rest, scram := strings.CutPrefix(verifier, "SCRAM-SHA-256$")
	if !scram {
		return false
	}
	head, _, _ := strings.Cut(rest, "$")
	count, text, _ := strings.Cut(head, ":")
	iterations, err := strconv.Atoi(count)
	salt, bad := base64.StdEncoding.DecodeString(text)
	if err != nil || bad != nil || iterations < 1 || iterations > 1_000_000 {
		return false
	}
	same, err := scramVerifier(password, salt, iterations)
	return err == nil && hmac.Equal([]byte(same), []byte(verifier))
}

// passwordHash stands for a password in states: a hash of its verifier, which is salted.
func passwordHash(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return "scram-sha-256:" + hex.EncodeToString(sum[:16])
}

// plainASCII tells whether a password means the same to every client. SCRAM prescribes how other signs are normalized,
// and not all clients do it alike.
func plainASCII(password string) bool {
	return !strings.ContainsFunc(password, func(r rune) bool { return r < 0x20 || r > 0x7e })
}
