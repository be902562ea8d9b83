package fetch_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
)

func FuzzRetryAfter(f *testing.F) {
	for _, text := range []string{"", "0", "30", "-1", " 7 ", "99999999999999999999", "1e9", "3.5", "Sat, 01 Jan 2000 00:00:45 GMT", "Saturday, 01-Jan-00 00:00:45 GMT", "Sat Jan  1 00:00:45 2000", "Fri, 31 Dec 9999 23:59:59 GMT", "\x00"} {
		f.Add(text, int64(946_684_800))
	}
	f.Fuzz(func(t *testing.T, text string, now int64) {
		if d := fetch.RetryAfter(text, time.Unix(now, 0)); d < 0 || d > 96*time.Hour {
			t.Errorf("%q: %s", text, d)
		}
	})
}

// FuzzReply: whatever a reply holds, it becomes records or a reason that can be shown.
func FuzzReply(f *testing.F) {
	for _, body := range []string{oneRecord, "", "[", `{"code":1,"msg":"a"}`, `{"data":{}}`, `{"data":[[],1,"a",null,{"s":"\ud800"}]}`, "<div class=v><b>1", "\x1f\x8b", zipped(oneRecord), zipped("<div class=v>1</div>"), strings.Repeat("[", 100)} {
		for _, coding := range []string{"", "gzip", "br"} {
			f.Add(200, coding, "application/json", body, false)
			f.Add(500, coding, "text/html", body, true)
		}
	}
	polls := map[bool]*fetch.Poll{}
	for page, decode := range map[bool]string{false: jsonDecode, true: htmlDecode} {
		polls[page] = newPoll(f, source(f, "1m", poll(api, "retries = 0", `max_body = "64KiB"`), decode), fetch.Options{})
	}
	f.Fuzz(func(t *testing.T, status int, coding, kind, body string, page bool) {
		if status < 200 || status > 599 || status == 301 || status == 302 || status == 303 || status == 307 || status == 308 {
			status = 200
		}
		polls[page].RoundTrip(always(status, body, "Content-Encoding", coding, "Content-Type", kind))
		records, err := polls[page].Fetch(t.Context())
		if err == nil {
			if len(records) == 0 || status != 200 {
				t.Errorf("HTTP %d: %d records", status, len(records))
			}
			return
		}
		e, ok := errors.AsType[*fetch.Error](err)
		if !ok {
			t.Fatalf("the error is %v", err)
		}
		plain(t, e.Reason)
	})
}
