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

// Versions of what is written.
const (
	Format          = 1 // of --json
	AgreementFormat = 2 // of saved plans
)

// JSON is a plan for programs. It is never read again: apply reads an Agreement.
type JSON struct {
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

// Write prints the plan.
func (s JSON) Write(w io.Writer) error {
	s.Format, s.Targets, s.Summary, s.Sum = Format, s.Plan.Targets, s.Plan.Summary(), ""
	var err error
	if s.Sum, err = digest(s); err != nil {
		return err
	}
	return write(w, s)
}

// Write saves the agreement.
func (a Agreement) Write(w io.Writer) error {
	a.Sum = ""
	var err error
	if a.Sum, err = digest(a); err != nil {
		return err
	}
	return write(w, a)
}

func write(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", " ")
	out.SetEscapeHTML(false)
	return out.Encode(v)
}

func digest(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// ReadAgreement reads a saved plan and checks that it is complete, undamaged and of this format.
func ReadAgreement(r io.Reader) (Agreement, error) {
	var a Agreement
	text, err := io.ReadAll(io.LimitReader(r, maxPlan+1))
	if err != nil {
		return a, err
	}
	if len(text) > maxPlan {
		return a, errors.New("it is larger than any plan")
	}
	var head struct {
		Format int    `json:"format"`
		Tool   string `json:"tool"`
		Sum    string `json:"sum"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		if _, syntax := errors.AsType[*json.SyntaxError](err); syntax &&
			strings.HasPrefix(strings.TrimSpace(string(text)), "{") {
			return a, errors.New("it is cut short or damaged: plan again")
		}
		return a, errors.New("it is not a plan: make one with cryptoviz plan --out FILE")
	}
	switch {
	case head.Format == 0 || head.Sum == "":
		return a, errors.New("it is not a plan: make one with cryptoviz plan --out FILE")
	case head.Format < AgreementFormat:
		return a, fmt.Errorf("it was made by an older cryptoviz (%s), or printed by plan --json: plan again, "+
			"with --out FILE", head.Tool)
	case head.Format != AgreementFormat:
		return a, fmt.Errorf("it is of format %d (cryptoviz %s), and this cryptoviz reads format %d: plan again",
			head.Format, head.Tool,
			AgreementFormat)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, errors.New("it is cut short or damaged: plan again")
	}
	unsigned := a
	unsigned.Sum = ""
	if sum, err := digest(unsigned); err != nil || sum != a.Sum {
		return a, errors.New("it was edited or damaged after it was made: plan again")
	}
	return a, nil
}
