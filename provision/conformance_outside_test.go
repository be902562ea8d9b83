package provision_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// What the servers count by themselves is no state: when something was made, under which number, as which column.
var (
	fileNumber   = regexp.MustCompile(` file \d+$`)
	columnNumber = regexp.MustCompile(`^(column .*?) \d+ (true|false) `)
	innerNumber  = regexp.MustCompile(`(_materialized_hypertable_|hypertable_id": )\d+`)
	ownersOnly   = regexp.MustCompile(`\{(cryptoviz|postgres)=\w+/(cryptoviz|postgres)\}`)
	counted      = []string{"id", "version", "updated", "updatedBy", "created", "createdBy", "meta"}
)

var timescaleSQL = []string{
	"SELECT 'job ' || proc_name || ' ' || coalesce(hypertable_name, '') || ' ' || schedule_interval || ' ' || scheduled || ' ' || config FROM timescaledb_information.jobs WHERE config IS NOT NULL",
	"SELECT 'chunks ' || hypertable_name || ' ' || column_name || ' ' || time_interval FROM timescaledb_information.dimensions",
	"SELECT 'columnstore ' || s.*::text FROM timescaledb_information.hypertable_compression_settings s",
	"SELECT 'aggregate ' || a.*::text FROM timescaledb_information.continuous_aggregates a",
}

// outside is the state of the harness, read in another way than plan does.
func (c *conformance) outside() (out []string) {
	c.t.Helper()
	_, name, _ := strings.Cut(c.address, ".")
	out = append(topics(c.t, c.kafka, name), collect(c.t, c.db, inventorySQL, "^"+name)...)
	out = slices.DeleteFunc(out, func(l string) bool { return strings.Contains(l, "........pg.dropped") })
	if len(collect(c.t, c.db, "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")) > 0 {
		for _, sql := range timescaleSQL {
			out = append(out, collect(c.t, c.db, sql)...)
		}
	}
	if slices.ContainsFunc(out, func(l string) bool { return strings.HasPrefix(l, "relation cryptoviz.source ") }) {
		out = append(out, collect(c.t, c.db, "SELECT 'source ' || name || ' ' || enabled || ' ' || every || ' ' || topic || ' ' || table_name || ' ' || description || ' ' || attribution FROM cryptoviz.source")...)
	}
	for i, l := range out {
		l = columnNumber.ReplaceAllString(fileNumber.ReplaceAllString(l, ""), "$1 $2 ")
		out[i] = ownersOnly.ReplaceAllString(innerNumber.ReplaceAllString(l, "$1"), "")
	}
	for _, path := range slices.Sorted(maps.Keys(c.paths)) {
		if text := c.get(path); text != "" {
			uid, _ := strings.CutPrefix(path, "datasources/uid/")
			out = append(out, path+" "+text+" "+c.grafana.Secret(uid, "password"))
		}
	}
	return out
}

// get is what Grafana says of an object; "" when there is none.
func (c *conformance) get(path string) string {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.grafana.URL+"/api/"+path, http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.grafana.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var m map[string]any
	if resp.StatusCode == http.StatusNotFound {
		return ""
	}
	if err != nil || json.Unmarshal(text, &m) != nil {
		c.t.Fatalf("%s: %d %s %v", path, resp.StatusCode, text, err)
	}
	if meta, is := m["meta"].(map[string]any); is {
		m["folderUid"] = meta["folderUid"]
	}
	for _, part := range []any{m, m["dashboard"]} {
		for _, key := range counted {
			if part, is := part.(map[string]any); is {
				delete(part, key)
			}
		}
	}
	rules, _ := m["rules"].([]any)
	m["rules"] = len(rules) // they are told one by one
	text, err = json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// sql changes something in the database. READER is the role, OURS the database.
func sql(statements ...string) func(*conformance) {
	return func(c *conformance) {
		c.t.Helper()
		for _, s := range statements {
			c.exec(strings.NewReplacer("READER", c.reader, "OURS", c.db.Config().ConnConfig.Database).Replace(s))
		}
	}
}
