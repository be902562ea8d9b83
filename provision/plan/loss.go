package plan

import "encoding/json"

// Units of what is lost.
const (
	Records = "record" // of a topic
	Rows    = "row"    // of a table, a view or an aggregate; of a column: its values
	Objects = "object" // of Grafana
)

// Loss is what a destroying change loses, as a number that a consent can name.
type Loss struct {
	Unit     string
	Count    int64  // of Unit; never less than what goes, unless the server only estimates it
	Known    bool   // false: it could not be counted, and Count is the part that could
	Bytes    int64  // 0: unknown
	Chunks   int    // that Count is in
	From, To string // RFC 3339, of the oldest and the newest that go
	When     string // "at once", "when the policy job runs: 2026-01-09 03:00 UTC"
}

// lossJSON is a Loss in plan --json, which has the counts of records and of rows under names of their own.
type lossJSON struct {
	Records int64  `json:"records,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	Rows    int64  `json:"rows,omitempty"`
	Chunks  int    `json:"chunks,omitempty"`
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	When    string `json:"when,omitempty"`
	Unit    string `json:"unit"`
	Count   int64  `json:"count"`
	Known   bool   `json:"known"`
}

// MarshalJSON writes the loss for programs.
func (l Loss) MarshalJSON() ([]byte, error) {
	out := lossJSON{
		Bytes: l.Bytes, Chunks: l.Chunks, From: l.From, To: l.To, When: l.When, Unit: l.Unit, Count: l.Count,
		Known: l.Known,
	}
	switch l.Unit {
	case Records:
		out.Records = l.Count
	case Rows:
		out.Rows = l.Count
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (l *Loss) UnmarshalJSON(text []byte) error {
	var in lossJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*l = Loss{
		Unit: in.Unit, Count: in.Count, Known: in.Known, Bytes: in.Bytes, Chunks: in.Chunks,
		From: in.From, To: in.To, When: in.When,
	}
	return nil
}
