package load

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf16"

	"github.com/cryptoviz/cryptoviz/engine/limits"
)

// deep are values that nest; the parser recurses for each.
func deep(t testing.TB, try func(hostile)) {
	for name, s := range map[string]struct{ open, middle, end string }{
		"list": {"[", "1", "]"}, "parentheses": {"(", "1", ")"}, "object": {"{a=", "1", "}"}, "template": {`"${`, "1", `}"`}, "minus": {"-", "1", ""}, "not": {"!", "true", ""},
		"conditional": {"true ? ", "1", " : 1"}, "else": {"true ? 1 : ", "1", ""}, "sum": {"1+", "1", ""}, "lines": {"1+\n", "1", ""}, "comments": {"1+ # x\n", "1", ""},
		"and": {"true && ", "true", ""}, "equal": {"1 == ", "1", ""}, "call": {"upper(", `"x"`, ")"}, "loop": {"[for x in ", "[1]", " : x]"}, "body": {"[for x in [1] : ", "x", "]"},
		"if": {"%{if true}", "x", "%{endif}"}, "for": {"%{for x in [1]}", "x", "%{endfor}"}, "heredoc": {"<<A\n${", "1", "}\nA\n"}, "list of lines": {"[\n", "1", "\n]"},
	} {
		most := 10_000
		if name == "list" || name == "template" || name == "object" || name == "sum" {
			most = 100_000 // which ends the process without the pre-scan
		}
		for _, n := range []int{65, 300, most} {
			for _, closed := range []bool{false, true} {
				n = min(n, limits.MaxFile/(len(s.open)+len(s.end)+1)-100)
				text := strings.Repeat(s.open, n)
				if closed {
					text += s.middle + strings.Repeat(s.end, n)
				}
				switch name {
				case "if", "for":
					text = `"` + text + `"`
				case "lines", "comments", "list of lines":
					text = "(" + text + ")"
				}
				try(hostile{name: fmt.Sprintf("%s %d deep, closed %v", name, n, closed), files: value(t, text)})
			}
		}
	}
	for name, step := range map[string]string{"index": "[0]", "variable index": "[var.x]", "attribute": ".a", "splat": "[*]", "full splat": ".*", "old index": ".0"} {
		for _, n := range []int{300, 50_000} {
			try(hostile{name: fmt.Sprintf("%s %d times", name, n), files: value(t, "var.pairs"+strings.Repeat(step, n))})
		}
	}
	for _, n := range []int{65, 1000, 100_000} {
		try(hostile{name: fmt.Sprintf("block %d deep", n), files: whole(t, strings.Repeat("a {\n", n)+strings.Repeat("}\n", n))})
	}
}

// large are files with much of something.
func large(t testing.TB, try func(hostile)) {
	pipeline := string(base(t)["pipeline.hcl"].Data)
	fill := func(unit string) string { return strings.Repeat(unit, (limits.MaxFile-len(pipeline)-100)/len(unit)) }
	many := func(n int, format string) string {
		var b strings.Builder
		b.WriteString(pipeline)
		for i := range n {
			b.WriteString(strings.ReplaceAll(format, "#", fmt.Sprint(i)))
		}
		return b.String()
	}
	columns := many(0, "") + "table \"wide\" {\n" + many(8_000, "column \"c#\" { type = \"text\" }\n")[len(pipeline):] + "}\n"
	try(hostile{name: "1 MiB and a byte", files: whole(t, pipeline+strings.Repeat("#", limits.MaxFile-len(pipeline)+1))})
	try(hostile{name: "1 MiB exactly", files: whole(t, pipeline+strings.Repeat("# "+strings.Repeat("word", 20)+"\n", limits.MaxFile/80)[:limits.MaxFile-len(pipeline)]), loads: true})
	try(hostile{name: "16 MiB", files: whole(t, strings.Repeat("#", 16<<20))})
	try(hostile{name: "a definition of 1 MiB and a byte", files: swap(t, "sources/feed.hcl", "stream {", strings.Repeat("#", limits.MaxFile)+"\nstream {")})
	try(hostile{name: "blanks", files: whole(t, pipeline+fill(" ")), loads: true})
	try(hostile{name: "tabs", files: whole(t, pipeline+fill("\t")), loads: true})
	try(hostile{name: "empty lines", files: whole(t, pipeline+fill("\n"))})
	try(hostile{name: "comments", files: whole(t, pipeline+fill("# ten words are in this line, and no more\n")), loads: true})
	try(hostile{name: "short comments", files: whole(t, pipeline+fill("#\n"))})
	try(hostile{name: "one name", files: whole(t, pipeline+fill("a"))})
	try(hostile{name: "one name as a value", files: value(t, strings.Repeat("a", limits.MaxFile/2))})
	try(hostile{name: "one name as a function", files: value(t, strings.Repeat("a", limits.MaxFile/2)+"()")})
	try(hostile{name: "one attribute name", files: swap(t, "pipeline.hcl", "brokers", strings.Repeat("b", limits.MaxFile/2))})
	try(hostile{name: "one label", files: swap(t, "pipeline.hcl", `topic "feed"`, `topic "`+strings.Repeat("f", limits.MaxFile/2)+`"`)})
	try(hostile{name: "one text", files: value(t, `["`+strings.Repeat("b", limits.MaxFile/2)+`"]`)})
	try(hostile{name: "one duration", files: swap(t, "pipeline.hcl", `"7d"`, `"`+strings.Repeat("7d", limits.MaxFile/4)+`"`)})
	try(hostile{name: "one size", files: swap(t, "pipeline.hcl", `retention  = "7d"`, `retention_bytes = "`+strings.Repeat("9", limits.MaxFile/2)+`"`)})
	try(hostile{name: "one schedule", files: swap(t, "pipeline.hcl", `"5 0 * * *"`, `"`+strings.Repeat("5,", 100_000)+`5 0 * * *"`), loads: true})
	try(hostile{name: "one path", files: swap(t, "pipeline.hcl", `"sources/feed.hcl"`, `"`+strings.Repeat("a/", limits.MaxFile/4)+`"`)})
	try(hostile{name: "one URL", files: swap(t, "sources/page.hcl", `https://page.example.com/`, `https://page.example.com/`+strings.Repeat("a/", limits.MaxFile/4))})
	try(hostile{name: "one selector", files: swap(t, "sources/page.hcl", `"div.value"`, `"`+strings.Repeat(":not(", 100_000)+`"`)})
	try(hostile{name: "one header", files: swap(t, "sources/spot.hcl", `X-Token`, `"`+strings.Repeat("X", limits.MaxFile/2)+`:"`)})
	try(hostile{name: "digits", files: swap(t, "pipeline.hcl", "partitions = 1", "partitions = "+strings.Repeat("9", limits.MaxFile/2))})
	try(hostile{name: "words", files: whole(t, pipeline+fill("a "))})
	try(hostile{name: "semicolons", files: whole(t, pipeline+fill(";"))})
	try(hostile{name: "quotes", files: whole(t, pipeline+fill(`"`))})
	try(hostile{name: "dollars", files: value(t, `["`+strings.Repeat("$", limits.MaxFile/2)+`"]`)})
	try(hostile{name: "escapes", files: value(t, `["`+strings.Repeat(`\u0041`, limits.MaxFile/8)+`"]`)})
	try(hostile{name: "closing braces", files: whole(t, pipeline+fill("}"))})
	try(hostile{name: "closing brackets in a value", files: value(t, strings.Repeat("]", limits.MaxFile/2))})
	try(hostile{name: "the same attribute", files: whole(t, pipeline+fill("a=1\n"))})
	try(hostile{name: "other attributes", files: whole(t, many(70_000, "a#=1\n"))})
	try(hostile{name: "empty blocks", files: whole(t, many(25_000, "b# {}\n"))})
	try(hostile{name: "labels", files: whole(t, pipeline+"topic "+strings.Repeat(`"a" `, 60_000)+"{}\n")})
	try(hostile{name: "combining marks", files: whole(t, pipeline+fill("\u0301"))})
	try(hostile{name: "combining marks in a text", files: value(t, `["a`+strings.Repeat("\u0301", limits.MaxFile/4)+`"]`)})
	try(hostile{name: "emoji joined", files: value(t, `["`+strings.Repeat("👩\u200d", limits.MaxFile/16)+`"]`)})
	try(hostile{name: "a heredoc", files: value(t, "<<E\n"+strings.Repeat("x\n", 200_000)+"E\n")})
	try(hostile{name: "a list of 10,001", files: value(t, "["+strings.Repeat(`"a",`, 10_000)+`"a"]`)})
	try(hostile{name: "a list of 10,000", files: value(t, "["+strings.Repeat(`"a:1",`, 9_999)+`"a:1"]`), loads: true})
	try(hostile{name: "10,000 sources", files: whole(t, many(10_000, "source \"s#\" {\n  definition = \"sources/feed.hcl\"\n  interval = \"1m\"\n  topic = topic.feed\n  table = table.raw\n}\n"))})
	try(hostile{name: "8,000 sources", files: whole(t, many(8_000, "source \"s#\" {\n definition=\"sources/feed.hcl\"\n interval=\"1m\"\n topic=topic.t#\n table=table.raw\n}\n"))})
	try(hostile{name: "3,000 sources that are right", files: whole(t, many(3_000, "source \"s#\" {\n definition=\"sources/feed.hcl\"\n interval=\"1m\"\n topic=topic.t#\n table=table.raw\n}\ntopic \"t#\" {}\n")), loads: true})
	try(hostile{name: "10,000 topics", files: whole(t, many(10_000, "topic \"t#\" {}\n")), loads: true})
	try(hostile{name: "5,000 topics of one name", files: whole(t, many(5_000, "topic \"t\" {}\n"))})
	try(hostile{name: "a table of 8,000 columns", files: whole(t, columns)})
	try(hostile{name: "5,000 variables", files: whole(t, many(5_000, "variable \"v#\" { default = [\"x\"] }\n")), loads: true})
	try(hostile{name: "a variable used 20,000 times", files: value(t, `["`+strings.Repeat("${var.token}", 20_000)+`"]`)})
	try(hostile{name: "2,000 unknown topics of 2,000", files: whole(t, many(2_000, "source \"s#\" {\n definition=\"sources/feed.hcl\"\n interval=\"1m\"\n topic=topic.u#\n table=table.raw\n}\ntopic \"t#\" {}\n"))})
}

// manyObjects are pipelines with much in PostgreSQL and Grafana.
func manyObjects(t testing.TB, try func(hostile)) {
	start := string(every(t)["pipeline.hcl"].Data)
	env := map[string]string{"CANARY": canary}
	repeat := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.ReplaceAll(format, "#", fmt.Sprint(i)))
		}
		return b.String()
	}
	with := func(name, more string, loads bool) {
		files := every(t)
		files["pipeline.hcl"] = &fstest.MapFile{Data: []byte(start + more)}
		try(hostile{name: name, files: files, env: env, loads: loads})
	}
	board := func(name, model string, loads bool) {
		files := every(t)
		files["dashboards/market.json"] = &fstest.MapFile{Data: []byte(model)}
		try(hostile{name: name, files: files, env: env, loads: loads})
	}
	views := repeat(10_000, "view \"v#\" { query = \"SELECT 1\" }\n")
	with("10,000 dashboards", repeat(10_000, "dashboard \"d#\" { file = \"dashboards/market.json\" }\n"), true)
	with("2,000 dashboards of one uid", repeat(2_000, "dashboard \"d#\" { file = \"dashboards/own.json\" }\n"), false)
	with("3,000 dashboards that are not there", repeat(3_000, "dashboard \"d#\" { file = \"d#.json\" }\n"), false)
	with("1,000 dashboards in unknown folders of 1,000", repeat(1_000, "dashboard \"d#\" {\n file=\"dashboards/market.json\"\n folder=folder.u#\n}\nfolder \"f#\" { title=\"x\" }\n"), false)
	with("3,000 folders one in the other", "folder \"f0\" { title = \"x\" }\n"+strings.Join(chain(3_000), ""), true)
	with("3,000 data sources", repeat(3_000, "datasource \"d#\" {}\n"), true)
	with("1,000 alerts", repeat(1_000, "alert \"a#\" {\n title=\"t#\"\n folder=folder.ops\n datasource=datasource.own_db\n query=\"SELECT 1\"\n above=#\n labels={ a=\"#\" }\n}\n"), true)
	with("10,000 views", views, true)
	with("3,000 views of one name", strings.Repeat("view \"v\" { query = \"SELECT 1\" }\n", 3_000), false)
	with("1,000 aggregates", repeat(1_000, "aggregate \"a#\" {\n from=table.ticks\n query=\"SELECT 1\"\n refresh {\n  start=\"3h\"\n  every=\"1h\"\n }\n}\n"), true)
	with("3,000 roles", repeat(3_000, "role \"r#\" { read_only = true }\n"), true)
	grant := func(list string) string {
		return "role \"all\" {\n" + strings.Repeat("grant {\n privileges=[\"select\"]\n on=["+list+"]\n}\n", 5) + "}\n"
	}
	views = repeat(3_000, "view \"v#\" { query = \"SELECT 1\" }\n")
	with("five grants on 3,000 views", views+grant(repeat(3_000, "view.v#,")), true)
	with("five grants on 3,000 unknown views", views+grant(repeat(3_000, "view.w#,")), false)
	with("five grants on one unknown view 3,000 times", views+grant(strings.Repeat("view.w,", 3_000)), false)
	with("10,000 privileges", "role \"all\" {\n grant {\n privileges=["+repeat(10_000, "\"p#\",")+"]\n on=[table.raw]\n}\n}\n", false)
	with("3,000 removed", repeat(3_000, "removed { object = topic.t# }\n"), true)
	wide := "table \"wide\" {\n column \"time\" { type = \"timestamptz\" }\n primary_key = [\"time\"]\n" + repeat(2_000, " column \"c#\" {\n  type=\"text\"\n  null=true\n  was=\"w#\"\n }\n")
	with("2,000 columns that had other names", wide+"}\n", true)
	store := wide + " hypertable {\n time = \"time\"\n columnstore {\n after = \"7d\"\n segment_by = ["
	with("a columnstore by 2,000 columns", store+repeat(2_000, "\"c#\",")+"]\n }\n }\n}\n", true)
	with("a columnstore by 2,000 unknown columns", store+repeat(2_000, "\"d#\",")+"]\n }\n }\n}\n", false)
	with("a columnstore by one unknown column 9,000 times", store+strings.Repeat("\"dd\",", 9_000)+"]\n }\n }\n}\n", false)
	with("one long title", "folder \"long\" { title = \""+strings.Repeat("t", limits.MaxFile/2)+"\" }\n", true)
	with("one long host", "datasource \"long\" { host = \""+strings.Repeat("h", limits.MaxFile/2)+"\" }\n", false)
	with("one long uid", "datasource \"long\" { uid = \""+strings.Repeat("u", limits.MaxFile/2)+"\" }\n", false)
	with("a title of controls", "folder \"bell\" { title = \"\\u0007\\u001b[2J\\u202e\" }\ndatasource \"a\" { title = \"\\u001b\" }\ndatasource \"b\" { title = \"\\u001b\" }\n", false)
	head := `{ "title": "Market", "x": "`
	board("a dashboard of 1 MiB", head+strings.Repeat("x", limits.MaxFile-len(head)-3)+`" }`, true)
	board("a dashboard of 1 MiB and a byte", head+strings.Repeat("x", limits.MaxFile-len(head)-2)+`" }`, false)
	board("a dashboard of 30 MiB", head+strings.Repeat("x", 30<<20), false)
	board("a dashboard 1,000,000 deep", `{ "title": "Market", "x": `+strings.Repeat("[", 1_000_000), false)
	board("a dashboard of 200,000 members", `{ "title": "Market"`+strings.Repeat(`,"":0`, 200_000)+`}`, true)
	board("a dashboard of digits", `{ "title": "Market", "x": `+strings.Repeat("9", 1_000_000)+`}`, true)
	board("a dashboard with a long uid", `{ "title": "Market", "uid": "`+strings.Repeat("u", 1_000_000)+`"}`, false)
	board("a dashboard with controls for a uid", `{ "title": "Market", "uid": "\u0000\u001b[2J\u202e"}`, false)
	board("a dashboard with a long version", `{ "title": { "`+strings.Repeat("u", 1_000_000)+`": 1 } }`, false)
	board("a dashboard with a NUL", `{ "title": "Market", "panels": [{ "title": "a\\\\\u0000" }] }`, false)
	board("a dashboard with a backslash before u0000", `{ "title": "Market", "panels": [{ "title": "a\\\\u0000" }] }`, true)
	board("a dashboard in Latin-1", "{ \"title\": \"caf\xe9\" }", false)
	board("a dashboard that is null", "null", false)
	board("an empty dashboard", "", false)
}

// chain is n folders, each in the one before.
func chain(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("folder \"f%d\" {\n title=\"x\"\n parent=folder.f%d\n}\n", i+1, i))
	}
	return out
}

// encodings are files that are no plain text.
func encodings(t testing.TB, try func(hostile)) {
	pipeline := string(base(t)["pipeline.hcl"].Data)
	wide := func(big bool) string {
		var b bytes.Buffer
		for _, u := range utf16.Encode([]rune(pipeline)) {
			if big {
				b.Write([]byte{byte(u >> 8), byte(u)})
			} else {
				b.Write([]byte{byte(u), byte(u >> 8)})
			}
		}
		return b.String()
	}
	try(hostile{name: "empty", files: whole(t, "")})
	try(hostile{name: "a blank", files: whole(t, " ")})
	try(hostile{name: "only comments", files: whole(t, "# nothing\n// nothing\n/* nothing */\n")})
	try(hostile{name: "a comment without an end", files: whole(t, pipeline+"/* x")})
	try(hostile{name: "BOM", files: whole(t, "\ufeff"+pipeline), loads: true})
	try(hostile{name: "only BOM", files: whole(t, "\ufeff")})
	try(hostile{name: "two BOMs", files: whole(t, "\ufeff\ufeff"+pipeline)})
	try(hostile{name: "BOM in the middle", files: whole(t, pipeline+"\ufeff")})
	try(hostile{name: "CRLF", files: whole(t, strings.ReplaceAll(pipeline, "\n", "\r\n")), loads: true})
	try(hostile{name: "CR", files: whole(t, strings.ReplaceAll(pipeline, "\n", "\r"))})
	try(hostile{name: "no newline at the end", files: whole(t, strings.TrimRight(pipeline, "\n")), loads: true})
	try(hostile{name: "UTF-16 LE", files: whole(t, wide(false))})
	try(hostile{name: "UTF-16 BE", files: whole(t, wide(true))})
	try(hostile{name: "UTF-16 LE with BOM", files: whole(t, "\xff\xfe"+wide(false))})
	try(hostile{name: "Latin-1", files: whole(t, pipeline+"# caf\xe9\n")})
	try(hostile{name: "an overlong slash", files: whole(t, pipeline+"# \xc0\xaf\n")})
	try(hostile{name: "a lone surrogate", files: whole(t, pipeline+"# \xed\xa0\x80\n")})
	try(hostile{name: "half a character", files: whole(t, pipeline+"# \xe2\x82")})
	try(hostile{name: "beyond Unicode", files: whole(t, pipeline+"# \xf4\x90\x80\x80\n")})
	try(hostile{name: "gzip", files: whole(t, "\x1f\x8b\x08\x00\x00\x00\x00\x00")})
	try(hostile{name: "ELF", files: whole(t, "\x7fELF\x02\x01\x01\x00")})
	try(hostile{name: "JSON", files: whole(t, `{"kafka": {"brokers": ["localhost:9092"]}}`)})
	try(hostile{name: "YAML", files: whole(t, "kafka:\n  brokers: [a]\n")})
	try(hostile{name: "TOML", files: whole(t, "[kafka]\nbrokers = [\"a\"]\n")})
	try(hostile{name: "HTML", files: whole(t, "<!doctype html><p>404")})
	try(hostile{name: "a shell script", files: whole(t, "#!/bin/sh\nrm -rf x\n")})
	try(hostile{name: "a stray escape", files: whole(t, pipeline+"\x1b[2J")})
	try(hostile{name: "a bell in a text", files: value(t, "[\"a\x07b\"]")})
	try(hostile{name: "backspaces in a comment", files: whole(t, pipeline+"# \x08\x08\n"), loads: true})
	for _, at := range []int{0, 1, len(pipeline) / 2, len(pipeline)} {
		try(hostile{name: fmt.Sprintf("NUL at %d", at), files: whole(t, pipeline[:at]+"\x00"+pipeline[at:])})
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 10 {
		b := make([]byte, 1<<(2*i))
		for j := range b {
			b[j] = byte(random.UintN(256))
		}
		try(hostile{name: fmt.Sprintf("random bytes %d", i), files: whole(t, string(b))})
	}
}

// names are what no object may be called.
func names(t testing.TB, try func(hostile)) {
	for _, name := range []string{
		`a\"b`, "a;drop table raw", "a'--", "a\\u0000b", "../a", "A", "é", "аbc", "a\u200bb", "a\u202eb", "\u2066a", "", " ", "1a", "_a", strings.Repeat("a", 49), `a\nb`,
		"$(rm)", "{{x}}", "a.b", "a-b", "a b", "ａ", "a\\u001b[31m", "ﬁ", "İ", "%s%n", "a`b", "a/b", "\\\\", "😀", "a\u0301",
	} {
		for kind, at := range map[string]struct{ file, old string }{
			"topic": {"pipeline.hcl", `topic "feed"`}, "table": {"pipeline.hcl", `table "mood"`}, "source": {"pipeline.hcl", `source "feed"`}, "rollup": {"pipeline.hcl", `rollup "hourly"`},
			"variable": {"pipeline.hcl", `variable "pairs"`}, "param": {"sources/spot.hcl", `param "pairs"`}, "budget": {"sources/spot.hcl", `budget "spot"`},
			"field": {"sources/page.hcl", `field "value"`}, "decode": {"sources/page.hcl", `decode "html"`}, "column": {"pipeline.hcl", `column "value"`},
			"view": {"pipeline.hcl", `view "latest"`}, "aggregate": {"pipeline.hcl", `aggregate "candles"`}, "role": {"pipeline.hcl", `role "reader"`}, "folder": {"pipeline.hcl", `folder "ops"`},
			"datasource": {"pipeline.hcl", `datasource "own_db"`}, "dashboard": {"pipeline.hcl", `dashboard "market"`}, "alert": {"pipeline.hcl", `alert "low"`},
		} {
			if kind == "column" && name == "_a" {
				continue // PostgreSQL allows it
			}
			try(hostile{name: fmt.Sprintf("%s %q", kind, name), files: swapIn(t, every(t), at.file, at.old, kind+` "`+name+`"`), env: map[string]string{"CANARY": canary}, small: true})
		}
	}
}

// growing are short expressions whose value, or whose work, is not.
func growing(t testing.TB, try func(hostile)) {
	thousand := `"` + strings.Repeat("a", 1000) + `"`
	list := "[" + strings.Repeat(`"a",`, 9_999) + `"b"]`
	short := "[" + strings.Repeat(`"a",`, 199) + `"b"]`
	try(hostile{name: "a broker of a million", files: value(t, `[format("%1000000d", 1)]`), loads: true})
	try(hostile{name: "three loops", files: value(t, "[for a in "+short+" : [for b in "+short+" : [for c in "+short+" : c]]]")})
	try(hostile{name: "three template loops", files: value(t, `"%{for a in `+short+`}%{for b in `+short+`}%{for c in `+short+`}x%{endfor}%{endfor}%{endfor}"`)})
	try(hostile{name: "a template loop in a loop", files: value(t, "[for a in "+short+` : "%{for b in `+short+`}${a}${b}%{endfor}"]`)})
	try(hostile{name: "a long body", files: value(t, "[for a in "+list+` : [`+strings.Repeat(`upper(a),`, 9_000)+`a]]`)})
	try(hostile{name: "contains in a loop", files: value(t, "[for a in "+list+" : a if contains("+list+`, "z")]`)})
	try(hostile{name: "join in a loop", files: value(t, "[for a in "+list+` : join("", `+list+")]")})
	try(hostile{name: "join with a long separator", files: value(t, "[join("+strings.Repeat(thousand, 1)+", "+list+")]")})
	try(hostile{name: "distinct", files: value(t, "distinct("+list+")")})
	try(hostile{name: "split into a million", files: value(t, `split("", format("%900000d", 1))`)})
	try(hostile{name: "concat of concat", files: value(t, strings.Repeat("concat("+short+",", 60)+short+strings.Repeat(")", 60))})
	try(hostile{name: "flatten", files: value(t, "flatten(["+strings.Repeat(short+",", 60)+short+"])")})
	try(hostile{name: "replace three times", files: value(t, `[replace(replace(replace("aaaaaaaaaa", "a", `+thousand+`), "a", `+thousand+`), "a", `+thousand+`)]`)})
	try(hostile{name: "replace of nothing", files: value(t, `[replace(format("%100000d", 1), "", `+thousand+`)]`)})
	try(hostile{name: "format with one argument many times", files: value(t, `[format("`+strings.Repeat("%[1]s", 2000)+`", `+thousand+`)]`)})
	try(hostile{name: "format with precision", files: value(t, `[format("%.1000000000f", 1)]`)})
	try(hostile{name: "format of a huge number", files: value(t, `[format("%d", 1e999 * 1e999 * 1e999)]`)})
	try(hostile{name: "jsonencode of jsonencode", files: value(t, "["+strings.Repeat("jsonencode(", 50)+`"\""`+strings.Repeat(")", 50)+"]")})
	try(hostile{name: "jsondecode, deep", files: value(t, `jsondecode("`+strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)+`")`)})
	try(hostile{name: "jsondecode, endless", files: value(t, `jsondecode("`+strings.Repeat("[", 400_000)+`")`)})
	try(hostile{name: "jsondecode of a huge number", files: value(t, `["${jsondecode("1e100000000")}"]`)})
	try(hostile{name: "jsondecode of many digits", files: value(t, `["${jsondecode("`+strings.Repeat("9", 500_000)+`")}"]`)})
	try(hostile{name: "tonumber of many digits", files: value(t, `["${tonumber("`+strings.Repeat("9", 500_000)+`")}"]`)})
	try(hostile{name: "tostring of a huge number", files: value(t, `[tostring(1e999)]`)})
	try(hostile{name: "tostring of a huge text", files: value(t, `[tostring("1e100000000" + 0)]`)})
	try(hostile{name: "a text as a number", files: value(t, `["${-"1e100000000"}"]`)})
	try(hostile{name: "a text as an index", files: value(t, `[["a"]["`+strings.Repeat("9", 100_000)+`"]]`)})
	try(hostile{name: "a huge index", files: value(t, `[["a"][1e99]]`)})
	try(hostile{name: "powers", files: value(t, `["${`+strings.Repeat("1e999*", 250)+`1}"]`)})
	try(hostile{name: "small powers", files: value(t, `["${`+strings.Repeat("1e-999*", 250)+`1}"]`)})
	try(hostile{name: "modulo of a power", files: swap(t, "pipeline.hcl", "partitions = 1", "partitions = 1e999 * 1e999 * 1e999 % 7")})
	try(hostile{name: "infinity", files: value(t, `["${1/0}"]`)})
	try(hostile{name: "no number", files: value(t, `["${0/0}"]`)})
	try(hostile{name: "infinity less infinity", files: value(t, `["${1/0 - 1/0}"]`)})
	try(hostile{name: "trim of a long set", files: value(t, `[trim(format("%500000d", 1), format("%500000d", 1))]`)})
	try(hostile{name: "conditionals over lists", files: value(t, strings.Repeat("true ? "+list+" : ", 20)+`["a"]`)})
	try(hostile{name: "splats", files: value(t, "["+strings.Repeat(list+"[*], ", 20)+"]")})
	try(hostile{name: "comparisons", files: value(t, "["+strings.Repeat(list+" == "+list+", ", 10)+"]")})
	try(hostile{name: "a text of a text", files: value(t, `["`+strings.Repeat(`${format("%500000d", 1)}`, 200)+`"]`)})
	try(hostile{name: "a loop of texts", files: value(t, "[for a in "+list+` : "${format("%9999d", 1)}"]`)})
	try(hostile{name: "a literal in a loop", files: value(t, "[for a in "+list+` : "x`+strings.Repeat("y", 400_000)+`${a}"]`)})
	try(hostile{name: "sort in a loop", files: value(t, "[for a in "+short+" : sort("+list+")]")})
	try(hostile{name: "merge in a loop", files: value(t, "[for a in "+short+" : merge({for b in ["+`"x"`+"] : b => "+list+"})]")})
	try(hostile{name: "try over the limit", files: value(t, `try([replace(replace(format("%100000d", 1), " ", `+thousand+`), "a", `+thousand+`)], ["a:1"])`), loads: true})
	try(hostile{name: "a default of a huge number", files: swap(t, "pipeline.hcl", `default   = ""`, `default   = "1e100000000" * 1`)})
	try(hostile{name: "a number from a text", files: swap(t, "pipeline.hcl", "type      = string\n  default   = \"\"", "type      = number\n  default   = \"1e100000000\"")})
	try(hostile{name: "a list of such", files: swap(t, "pipeline.hcl", "type    = list(string)\n  default = [\"BTC/USD\"]", "type    = list(number)\n  default = [\"1e100000000\"]")})
	try(hostile{name: "a variable of itself", files: swap(t, "pipeline.hcl", `["BTC/USD"]`, "[var.pairs]")})
	try(hostile{name: "a type of types", files: swap(t, "pipeline.hcl", "list(string)", strings.Repeat("list(", 60)+"string"+strings.Repeat(")", 60))})
	try(hostile{name: "a wide type", files: swap(t, "pipeline.hcl", "list(string)", "object({"+strings.Repeat("a = string, ", 9_000)+"})")})
	try(hostile{name: "the pipeline as a query", files: swap(t, "pipeline.hcl", `file("sql/hourly.sql")`, `file("pipeline.hcl")`)})
	try(hostile{name: "a table rolled up into itself", files: swap(t, "pipeline.hcl", "into     = table.hourly", "into     = table.raw")})
	try(hostile{name: "the environment as text", files: value(t, `["${env("HUGE")}${env("HUGE")}"]`), env: map[string]string{"HUGE": strings.Repeat(canary, 100_000)}})
	try(hostile{name: "the environment as JSON", files: value(t, `jsondecode(env("BOMB"))`), env: map[string]string{"BOMB": strings.Repeat("[", 500_000)}})
	try(hostile{name: "a variable of the environment", files: base(t), env: map[string]string{"CRYPTOVIZ_VAR_pairs": strings.Repeat("[", 500_000)}})
	try(hostile{name: "a loop in the environment", files: base(t), env: map[string]string{"CRYPTOVIZ_VAR_pairs": "[for a in " + list + " : " + `"` + strings.Repeat("a", 100_000) + `"]`}})
	try(hostile{name: "a large text in the environment", files: base(t), env: map[string]string{"CRYPTOVIZ_VAR_token": strings.Repeat("a", 2<<20)}})
	big := base(t)
	for i := range 40 {
		name := fmt.Sprintf("sources/d%d.hcl", i)
		src := append(bytes.Clone(big["sources/feed.hcl"].Data), bytes.Repeat([]byte("#"), limits.MaxFile-2000)...)
		big[name] = &fstest.MapFile{Data: src}
		big["pipeline.hcl"] = &fstest.MapFile{Data: append(bytes.Clone(big["pipeline.hcl"].Data), fmt.Sprintf("topic \"d%d\" {}\nsource \"d%d\" {\n definition = %q\n interval = \"1m\"\n topic = topic.d%d\n table = table.raw\n}\n", i, i, name, i)...)}
	}
	try(hostile{name: "40 MiB of definitions", files: big})
}
