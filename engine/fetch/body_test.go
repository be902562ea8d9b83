package fetch_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/record"
)

// zipped compresses a text.
func zipped(text string) string {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return buf.String()
}

// pollOf is a poll of a server on loopback.
func pollOf(t testing.TB, decode string, h http.HandlerFunc, more ...string) *fetch.Poll {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	more = append(more, "retries = 0", fmt.Sprintf("allow_private = [%q]", s.Listener.Addr()))
	return newPoll(t, source(t, "1m", poll(s.URL+"/v1", more...), decode), fetch.Options{})
}

// raw answers with these bytes and ends the connection; with reset, hard.
func raw(t testing.TB, text string, reset bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(buf, text)
		_ = buf.Flush()
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
	}
}

// body answers with a body; header holds names and values in turn.
func body(text string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		_, _ = io.WriteString(w, text)
	}
}

// endless writes a piece again and again until the client has gone.
func endless(piece string, every time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := io.WriteString(w, piece); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			if every > 0 {
				select {
				case <-r.Context().Done():
					return
				case <-time.After(every): //nolint:forbidigo // the pace of a server
				}
			}
		}
	}
}

// TestBody: what each bad body gives as the reason.
func TestBody(t *testing.T) {
	t.Parallel()
	const (
		jsonType = "application/json"
		short    = `timeout = "500ms"`
	)
	cut := zipped(`{"data":[` + strings.Repeat(`{"s":"BTC","p":1},`, 1000) + `{}]}`)
	wrongSum := []byte(zipped(oneRecord))
	wrongSum[len(wrongSum)-8] ^= 1
	damaged := []byte(cut)
	damaged[20] ^= 0xff
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // "" for a good reply
		more   []string
	}{
		{"good", body(oneRecord), "", nil},
		{"gzip", body(zipped(oneRecord), "Content-Encoding", "GZIP"), "", nil},
		{"identity", body(oneRecord, "Content-Encoding", "identity"), "", nil},
		{"duplicate names: the last one counts", body(`{"data":[],"data":[{"s":"BTC","p":1,"p":2}]}`), "", nil},
		{"not UTF-8 in a text", body("{\"data\":[{\"s\":\"BTC\",\"p\":\"\xff\xfe\"}]}"), "", nil},
		{"redirect on this host", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1" {
				http.Redirect(w, r, "/v2", http.StatusFound)
				return
			}
			body(oneRecord)(w, r)
		}, "", nil},

		{"empty", body("", "Content-Type", jsonType), "the reply is empty", nil},
		{"empty gzip", body("", "Content-Encoding", "gzip"), "the reply is empty", nil},
		{"blanks", body(" \r\n\t", "Content-Type", jsonType), "the reply is empty", nil},
		{"a page", body("<!DOCTYPE html>\n<title>Sign in to the hotel's network</title>", "Content-Type", "text/html"), "the reply is not JSON (text/html): a value cannot begin with '<', at byte 0. It begins: <!DOCTYPE html> <title>Sign in to the hotel's network</title>", nil},
		{"no type", raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nBTC", false), "the reply is not JSON (no Content-Type): a value cannot begin with 'B', at byte 0. It begins: BTC", nil},
		{"truncated JSON", body(oneRecord[:20], "Content-Type", jsonType), `the reply is not JSON (application/json): it is cut short, at byte 20. It begins: {"data":[{"s":"BTC",`, nil},
		{"two values", body("{}{}", "Content-Type", jsonType), `the reply is not JSON (application/json): something follows the value, at byte 2. It begins: {}{}`, nil},
		{"a byte order mark", body("\xef\xbb\xbf"+oneRecord, "Content-Type", jsonType), "", nil},
		{"UTF-16", body("\xff\xfe"+strings.Join(strings.Split(oneRecord, ""), "\x00")+"\x00", "Content-Type", jsonType), "", nil},
		{"UTF-16 that is no JSON", body("\xff\xfe\x62\x00\x61\x00", "Content-Type", jsonType), "the reply is not JSON (application/json): a value cannot begin with 'b', at byte 0. It begins: ba", nil},
		{"not UTF-8", body("\xff[", "Content-Type", jsonType), "the reply is not JSON (application/json): a value cannot begin with 'ÿ', at byte 0. It begins: [", nil},
		{"nothing that can be shown", body("\x00\x01", "Content-Type", jsonType), "the reply is not JSON (application/json): a value cannot begin with '\\x00', at byte 0", nil},
		{"the source's own error, that cannot be shown", body(`{"code":"\u0000","msg":""}`), "the source says: :", nil},
		{"deep", body(strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000), "Content-Type", jsonType), "the reply is not JSON (application/json): nested deeper than 64, at byte 64. It begins: " + strings.Repeat("[", 100) + "…", nil},
		{"the source's own error", body(`{"code":-1003,"msg":"Too much\u0000 \u001b[31mrequest\nweight, key ` + headerKey + `"}`), "the source says: -1003: Too much [31mrequest weight, key (hidden)", nil},
		{"another shape", body(`{"data":1}`), "the reply has a number at body.data, not a list or an object: has the API changed?", nil},
		{"the records are gone", body(`{"rows":[]}`), "the reply has nothing at body.data, not a list or an object: has the API changed?", nil},
		{"no records", body(`{"data":[]}`), "the reply holds no records", nil},
		{"too many records", body(`{"data":[` + strings.Repeat("1,", 100_000) + `1]}`), "the reply has more than 100000 records", nil},

		{"truncated gzip", body(cut[:len(cut)/2], "Content-Encoding", "gzip"), "the reply broke off after 801 B", nil},
		{"gzip that is none", body(oneRecord, "Content-Encoding", "gzip"), "the reply says that it is gzip and is not", nil},
		{"gzip with a wrong sum", body(string(wrongSum), "Content-Encoding", "gzip"), "the reply's compression is damaged after 28 B", nil},
		{"damaged gzip", body(string(damaged), "Content-Encoding", "gzip"), "the reply's compression is damaged after 0 B", nil},
		{"a compression that nobody asked for", body("\x28\xb5\x2f\xfd", "Content-Encoding", "zstd"), "the reply has a compression that was not asked for: \"zstd\"", nil},
		{"gzip twice", body(zipped(zipped(oneRecord)), "Content-Encoding", "gzip, gzip"), "the reply has a compression that was not asked for: \"gzip, gzip\"", nil},

		{"shorter than it said", raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"+oneRecord, false), "the reply broke off after 28 B", nil},
		{"reset in its midst", raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"+oneRecord, true), "the reply broke off after …?", nil},
		{"reset at once", raw(t, "", true), "the source broke the connection off", nil},
		{"closed at once", raw(t, "", false), "the source broke the connection off", nil},
		{"chunks that end in the midst", raw(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\n"+oneRecord+"\r\n", false), "the reply broke off after 28 B", nil},
		{"chunks that are none", raw(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nboo\r\n", false), "invalid byte in chunk length", nil},
		{"no HTTP", raw(t, "SSH-2.0-OpenSSH_9.6\r\n", false), `malformed HTTP response "SSH-2.0-OpenSSH_9.6"`, nil},
		{"no header's end", func(w http.ResponseWriter, r *http.Request) {
			raw(t, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X-A: b\r\n", 20_000), false)(w, r)
		}, "server response headers exceeded 65536 bytes; aborted", nil},
		{"a header that drips", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no whole answer in time", []string{short}},
		{"a body that drips", endless(" ", 10*time.Millisecond), "no whole answer in time", []string{short}},
		{"a gzip body that drips", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, zipped(" ")[:12])
			endless("", 10*time.Millisecond)(w, r)
		}, "no whole answer in time", []string{short}},
		{"a gzip header that drips", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "\x1f")
			endless("", 10*time.Millisecond)(w, r)
		}, "no whole answer in time", []string{short}},
		{"an error page that drips", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			endless("!", 50*time.Millisecond)(w, r)
		}, "HTTP 502 Bad Gateway: !…?", []string{`timeout = "3s"`}}, // its header must come in time

		{"just over the limit", body(oneRecord + " "), "the reply has more than 28 B after decompression: raise max_body if that is right", []string{`max_body = "28B"`}},
		{"just under it", body(oneRecord), "", []string{`max_body = "28B"`}},
		{"far over it, as announced", body(strings.Repeat(" ", 100<<10)), "the reply has more than 28 B after decompression: raise max_body if that is right", []string{`max_body = "28B"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := pollOf(t, jsonDecode, c.answer, c.more...)
			records, err := p.Fetch(t.Context())
			if c.want == "" {
				if err != nil || len(records) != 1 || records[0].Key != "BTC" {
					t.Errorf("%+v, %v", records, err)
				}
				return
			}
			e := failure(t, err)
			got, rest := e.Reason, ""
			if want, open := strings.CutSuffix(c.want, "…?"); open && strings.HasPrefix(got, want) { // how much has come varies
				got, rest = c.want, got[len(want):]
			}
			if got != c.want || e.NotTried || len(strings.Trim(rest, "!")) > 10 {
				t.Errorf("the reason is %q\nwant %q", e.Reason, c.want)
			}
		})
	}
}

const htmlDecode = `decode "html" {
	select = "div.v"
	field "p" { select = "b" }
}`

func TestPage(t *testing.T) {
	t.Parallel()
	formatting := func() string { // elements that HTML opens again in each paragraph
		var b strings.Builder
		b.WriteString("<p>")
		for i := range 400 {
			fmt.Fprintf(&b, "<b a=%d>", i)
		}
		return b.String() + strings.Repeat("<p>x", 100_000)
	}
	for _, c := range []struct{ name, page, want string }{
		{"good", `<div class=v><b>1</b></div>`, ""},
		{"600 open elements", strings.Repeat("<div>", 600), "not HTML: html: open stack of elements exceeds 512 nodes"},
		{"no match", "<div class=w>1</div>", `the page has changed: nothing matches "div.v"`},
		{"empty", "", `the page has changed: nothing matches "div.v"`},
		{"JSON", oneRecord, `the page has changed: nothing matches "div.v"`},
		{"too many tags", strings.Repeat("<p>", 250_001), "the page has more than 250000 tags"},
		{"too many matches", strings.Repeat("<div class=v></div>", 100_001), `"div.v" matches too much of the page: elements inside each other`},
		{"matches in matches", strings.Repeat("<div class=v>", 400) + strings.Repeat("x", 1<<20), `"div.v" matches too much of the page: elements inside each other`},
		{"cells without a table", strings.ReplaceAll(formatting(), "<p>x", "<td><p>"), "the page costs too much to read: formatting elements that are never closed"},
		{"elements that are never closed", formatting(), "the page costs too much to read: formatting elements that are never closed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPoll(t, source(t, "1h", poll(api, "retries = 0"), htmlDecode), fetch.Options{})
			p.RoundTrip(always(200, c.page, "Content-Type", "text/html"))
			var records []record.Record
			var err error
			grown := growth(func() { records, err = p.Fetch(t.Context()) })
			t.Logf("%d KiB: %d MiB", len(c.page)>>10, grown>>20)
			if c.want == "" {
				if err != nil || len(records) != 1 || string(records[0].Value) != `<div class="v"><b>1</b></div>` {
					t.Errorf("%+v, %v", records, err)
				}
				return
			}
			if e := failure(t, err); e.Reason != c.want && e.Reason != "not HTML: "+c.want {
				t.Errorf("the reason is %q\nwant %q", e.Reason, c.want)
			}
		})
	}
}

// TestBombs: replies that are far larger than they look, or never end, stop at the limit and take little memory.
func TestBombs(t *testing.T) {
	// Alone: it measures the heap.
	var member bytes.Buffer
	z := gzip.NewWriter(&member)
	_, _ = z.Write(make([]byte, 16<<20))
	_ = z.Close()
	bomb := strings.Repeat(member.String(), 64)
	if len(bomb) > 1<<20+1<<16 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	const tooLarge = "the reply has more than 16 MiB after decompression: raise max_body if that is right"
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"1 MiB of gzip that is 1 GiB", body(bomb, "Content-Encoding", "gzip"), tooLarge},
		{"100 MiB, announced", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(100<<20))
			endless(strings.Repeat(" ", 64<<10), 0)(w, r)
		}, tooLarge},
		{"endless chunks", endless(strings.Repeat(" ", 64<<10), 0), tooLarge},
		{"a list of numbers", body(`{"data":[` + strings.Repeat("1,", 7<<20) + `1]}`), "the reply has more than 100000 records"},
		{"a list of numbers where an error is looked for", body(`{"code":[` + strings.Repeat("1,", 7<<20) + `1]}`), "body.code has more than 200000 elements: too many for an expression"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := pollOf(t, jsonDecode, c.answer)
			var err error
			grown := growth(func() { _, err = p.Fetch(t.Context()) })
			t.Logf("%d MiB", grown>>20)
			if e := failure(t, err); e.Reason != c.want {
				t.Errorf("the reason is %q, want %q", e.Reason, c.want)
			}
			if grown > 64<<20 && !raceDetector() {
				t.Errorf("memory grew by %d MiB", grown>>20)
			}
		})
	}
}

// raceDetector tells whether the race detector runs: it needs memory of its own.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// growth runs f and returns by how much the process's memory grew at most.
func growth(f func()) uint64 {
	read := func() uint64 {
		s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64() - s[1].Value.Uint64()
	}
	debug.FreeOSMemory()
	before, most := read(), uint64(0)
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, read())
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(done)
	<-watched
	return max(most, before) - before
}
