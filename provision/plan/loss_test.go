package plan

import (
	"encoding/json"
	"testing"
)

// A program that reads "rows" and "records" of plan --json goes on to work; what is counted has its unit beside it.
func TestLossJSON(t *testing.T) {
	for _, l := range []Loss{
		{Unit: Rows, Count: 12, Known: true, Chunks: 2, Bytes: 9, From: "2026-01-03T00:00:00Z", When: "at once"},
		{Unit: Records, Count: 7, Known: false, To: "2026-01-03T00:00:00Z"},
		{Unit: Objects, Count: 1, Known: true},
	} {
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var got Loss
		if err := json.Unmarshal(text, &got); err != nil || got != l {
			t.Errorf("%s: %+v %v", text, got, err)
		}
		var keys map[string]any
		_ = json.Unmarshal(text, &keys)
		if key := map[string]string{Rows: "rows", Records: "records"}[l.Unit]; key != "" && keys[key] != float64(l.Count) {
			t.Errorf("%s lacks %s", text, key)
		}
	}
}
