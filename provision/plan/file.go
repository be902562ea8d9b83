package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Format is the version of saved plans and of --json.
const Format = 1

// Saved is a plan in a file, for apply FILE. It holds no secret: secrets are salted hashes, and apply takes the values from
// the environment again.
type Saved struct {
	Format   int       `json:"format"`
	Tool     string    `json:"tool"` // version of cryptoviz
	Made     time.Time `json:"made"`
	Pipeline string    `json:"pipeline"` // path of pipeline.hcl
	Targets  []string  `json:"targets,omitempty"`
	Summary  string    `json:"summary"`
	Plan
	Sum string `json:"sum"` // SHA-256 over all of the above
}

// maxPlan bounds a plan file: 4,000 objects need a few MiB.
const maxPlan = 256 << 20

// Write saves a plan.
func (s Saved) Write(w io.Writer) error {
	s.Format, s.Summary, s.Sum = Format, s.Plan.Summary(), ""
	sum, err := s.digest()
	if err != nil {
		return err
	}
	s.Sum = sum
	out := json.NewEncoder(w)
	out.SetIndent("", " ")
	out.SetEscapeHTML(false)
	return out.Encode(s)
}

func (s Saved) digest() (string, error) {
	s.Sum = ""
	text, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// ReadFile reads a saved plan and checks that it is whole, unchanged and of this format.
func ReadFile(r io.Reader) (Saved, error) {
	var s Saved
	text, err := io.ReadAll(io.LimitReader(r, maxPlan+1))
	if err != nil {
		return s, err
	}
	if len(text) > maxPlan {
		return s, errors.New("it is larger than any plan")
	}
	var head struct {
		Format int    `json:"format"`
		Tool   string `json:"tool"`
		Sum    string `json:"sum"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		if _, syntax := errors.AsType[*json.SyntaxError](err); syntax && strings.HasPrefix(strings.TrimSpace(string(text)), "{") {
			return s, errors.New("it is cut short or damaged: plan again")
		}
		return s, errors.New("it is no plan: make one with cryptoviz plan --out FILE")
	}
	switch {
	case head.Format == 0 || head.Sum == "":
		return s, errors.New("it is no plan: make one with cryptoviz plan --out FILE")
	case head.Format != Format:
		return s, fmt.Errorf("it is of format %d (cryptoviz %s), and this cryptoviz reads format %d: plan again", head.Format, head.Tool, Format)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, errors.New("it is cut short or damaged: plan again")
	}
	if sum, err := s.digest(); err != nil || sum != s.Sum {
		return s, errors.New("it was edited or damaged after it was made: plan again")
	}
	return s, nil
}
