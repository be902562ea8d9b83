package provision_test

import (
	"fmt"
	"strings"

	"github.com/cryptoviz/cryptoviz/engine/schema"
	"github.com/cryptoviz/cryptoviz/provision/plan"
)

// engineRelations are what a privilege on the engine's schema reaches: all but the ledger.
var engineRelations = strings.Count(schema.SQL, "CREATE TABLE IF NOT EXISTS cryptoviz.") + strings.Count(schema.SQL, "VIEW cryptoviz.") - 1

func databaseSubjects() []subject {
	return []subject{
		{
			kind: "engine", address: "engine.schema", removed: "CV-T35",
			files: map[string]string{"feed.hcl": `
source {
  description = "A feed"
  attribution = "Data: a feed"
}
poll {
  url = "https://feed.example.com/"
}
decode "json" {
  records = body
}
row {
  id   = r.id
  name = r.name
}
`, "pipeline.hcl": coins + strings.ReplaceAll(coins, "coins", "coins_too") + `
topic "conform_feed" {
}
topic "conform_other" {
}
source "feed" {
  definition = "feed.hcl"
  interval   = "1m"
  topic      = topic.conform_feed
  table      = table.coins
}
`},
			attributes: []attribute{
				{
					fields: "Source.Enabled", edit: []string{`= "1m"`, "= \"1m\"\n  enabled    = false"},
					shows:      []string{"source.feed: enabled, every 1m, conform_feed -> coins -> disabled, every 1m, conform_feed -> coins"},
					drift:      sql("UPDATE cryptoviz.source SET enabled = true"),
					driftShows: []string{"source.feed: enabled, every 1m, conform_feed -> coins -> disabled, every 1m, conform_feed -> coins"},
				},
				{
					fields: "Source.Interval", edit: []string{`= "1m"`, `= "5m"`},
					shows:      []string{"source.feed: disabled, every 1m, conform_feed -> coins -> disabled, every 5m, conform_feed -> coins"},
					drift:      sql("UPDATE cryptoviz.source SET every = '1 hour'"),
					driftShows: []string{"source.feed: disabled, every 1h, conform_feed -> coins -> disabled, every 5m, conform_feed -> coins"},
				},
				{
					fields: "Source.Topic", edit: []string{"= topic.conform_feed", "= topic.conform_other"},
					shows:      []string{"source.feed: disabled, every 5m, conform_feed -> coins -> disabled, every 5m, conform_other -> coins"},
					drift:      sql("UPDATE cryptoviz.source SET topic = 'x'"),
					driftShows: []string{"source.feed: disabled, every 5m, x -> coins -> disabled, every 5m, conform_other -> coins"},
				},
				{
					fields: "Source.Table", edit: []string{"= table.coins\n", "= table.coins_too\n"},
					shows:      []string{"source.feed: disabled, every 5m, conform_other -> coins -> disabled, every 5m, conform_other -> coins_too"},
					drift:      sql("UPDATE cryptoviz.source SET table_name = 'x'"),
					driftShows: []string{"source.feed: disabled, every 5m, conform_other -> x -> disabled, every 5m, conform_other -> coins_too"},
				},
				{
					fields: "Source.Definition", edit: []string{`"A feed"`, `"Another feed"`}, shows: []string{"source.feed description: A feed -> Another feed"},
					drift: sql("UPDATE cryptoviz.source SET description = 'x'"), driftShows: []string{"source.feed description: x -> Another feed"},
				},
				{
					fields: "Source.Definition", edit: []string{`"Data: a feed"`, `"Data: another"`},
					shows: []string{"source.feed attribution: Data: a feed -> Data: another"},
					drift: sql("UPDATE cryptoviz.source SET attribution = 'x'"), driftShows: []string{"source.feed attribution: x -> Data: another"},
				},
			},
		},
		{
			kind: "view", address: "view.cheap",
			files: map[string]string{"pipeline.hcl": coins + `
view "cheap" {
  description = "Cheap coins."
  query       = "SELECT id, name FROM coins WHERE price < 5"
}
`},
			attributes: []attribute{
				{
					fields: "View.Description", edit: []string{`"Cheap coins."`, `"Coins of little worth."`},
					shows: []string{"description: Cheap coins. -> Coins of little worth."},
					drift: sql("COMMENT ON VIEW cheap IS 'x'"), driftShows: []string{"description: x -> Coins of little worth."},
				},
				{fields: "View.Description", edit: []string{"  description = \"Coins of little worth.\"\n", ""}, shows: []string{"description: Coins of little worth. -> "}},
				{
					fields: "View.Query", edit: []string{"price < 5", "price < 7"}, shows: []string{"query"},
					drift: sql("CREATE OR REPLACE VIEW cheap AS SELECT id, name FROM coins"), driftShows: []string{"query"},
				},
				{
					fields: "View.Query", edit: []string{"SELECT id, name FROM", "SELECT name FROM"}, action: plan.Replace, shows: []string{"query"}, codes: "CV-V04",
					drift: sql("DROP VIEW cheap", "CREATE VIEW cheap AS SELECT price FROM coins"), driftShows: []string{"query"}, driftCodes: "CV-V04",
				},
				{fields: "View.Query", edit: []string{"SELECT name FROM", "SELECT nama FROM"}, shows: []string{"query"}, codes: "CV-V02"},
			},
		},
		{
			kind: "role", address: "role.READER",
			files: map[string]string{"pipeline.hcl": coins + `
view "cheap" {
  query = "SELECT id, name FROM coins WHERE price < 5"
}
role "READER" {
  login             = true
  password          = env("SECRET_6f6e65")
  read_only         = true
  statement_timeout = "30s"
  grant {
    privileges = ["select"]
    on         = [table.coins, cryptoviz]
  }
}
`},
			attributes: []attribute{
				{
					fields: "Role.Login", edit: []string{"login             = true", "login             = false"}, shows: []string{"login: true -> false"},
					drift: sql("ALTER ROLE READER LOGIN"), driftShows: []string{"login: true -> false"},
				},
				{
					fields: "Role.Password", edit: []string{"SECRET_6f6e65", "SECRET_74776f"}, shows: []string{"password"},
					drift: sql("ALTER ROLE READER PASSWORD 'x'"), driftShows: []string{"password"},
				},
				{
					fields: "Role.Password", edit: []string{"env(\"SECRET_74776f\")", "null"}, shows: []string{"password"},
				},
				{
					fields: "Role.ReadOnly", edit: []string{"read_only         = true", "read_only         = false"}, shows: []string{"read_only: true -> "},
				},
				{
					fields: "Role.ReadOnly", edit: []string{"read_only         = false", "read_only         = true"}, shows: []string{"read_only:  -> true"},
					drift: sql("ALTER ROLE READER IN DATABASE OURS SET default_transaction_read_only = off"), driftShows: []string{"read_only: false -> true"},
				},
				{
					fields: "Role.Timeout", edit: []string{`"30s"`, `"5m"`}, shows: []string{"statement_timeout: 30s -> 5m"},
					drift: sql("ALTER ROLE READER IN DATABASE OURS SET statement_timeout = '1s'"), driftShows: []string{"statement_timeout: 1s -> 5m"},
				},
				{fields: "Role.Timeout", edit: []string{"  statement_timeout = \"5m\"\n", ""}, shows: []string{"statement_timeout: 5m -> "}},
				{
					fields: "Grant.Privileges", edit: []string{`["select"]`, `["select", "insert"]`},
					shows: []string{"insert on coins:  -> granted", "insert on cryptoviz:  -> granted"},
					drift: sql("REVOKE INSERT ON coins FROM READER"), driftShows: []string{"insert on coins:  -> granted"},
				},
				{
					fields: "Grant.Privileges", edit: []string{`["select", "insert"]`, `["select"]`},
					shows: []string{"insert on coins: granted -> ", "insert on cryptoviz: granted -> "}, codes: "CV-R08",
				},
				{
					fields: "Grant.On", edit: []string{"[table.coins, cryptoviz]", "[table.coins, view.cheap]"},
					shows: []string{"select on cheap:  -> granted", "select on cryptoviz: granted -> "}, codes: "CV-R08",
					drift: sql("REVOKE SELECT ON cheap FROM READER"), driftShows: []string{"select on cheap:  -> granted"},
				},
				{
					fields: "Role.Grants", edit: []string{"  grant {", "  grant {\n    privileges = [\"update\"]\n    on         = [cryptoviz]\n  }\n  grant {"},
					shows: []string{"update on cryptoviz:  -> granted"},
					drift: sql("REVOKE UPDATE ON cryptoviz.slot FROM READER"), driftShows: []string{fmt.Sprintf("update on cryptoviz: granted on %d of %d tables -> granted", engineRelations-1, engineRelations)},
				},
				{
					fields: "Role.Grants", edit: []string{"  grant {\n    privileges = [\"update\"]\n    on         = [cryptoviz]\n  }\n", ""},
					shows: []string{"update on cryptoviz: granted -> "}, codes: "CV-R08",
				},
			},
		},
	}
}
