package pg

import "testing"

func FuzzTokens(f *testing.F) {
	for _, s := range []string{"SELECT 'a'", `E'\'`, "$a$", "/* /*", "\"", "--", "€", "$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		end := 0
		for _, k := range Tokens(sql) {
			if k.Start < end || k.End <= k.Start || k.End > len(sql) {
				t.Fatalf("%q: %+v after %d", sql, k, end)
			}
			end = k.End
		}
	})
}
