package fetch_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cryptoviz/cryptoviz/engine/fetch"
	"github.com/cryptoviz/cryptoviz/engine/record"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

// denied are addresses that no source may lead to, in the many ways that they can be written.
var denied = []string{
	// loopback
	"127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.0.0.1.",
	"localhost", "LOCALHOST", "localhost.", "sub.localhost", "①②⑦.⓪.⓪.①", "127。0。0。1", "%6cocalhost", "%31%32%37.0.0.1",
	"[::1]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::1%25lo]", "[::127.0.0.1]",
	// IPv4 inside IPv6: mapped, NAT64, 6to4, Teredo, translated
	"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[::ffff:0:127.0.0.1]",
	"[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b::10.0.0.1]", "[64:ff9b:1::127.0.0.1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::]", "[2001:0:7f00:1::]",
	// this host, and none
	"0.0.0.0", "0", "0.1.2.3", "[::]", "[::%25lo]",
	// private, link-local, carriers'
	"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.0.1", "[fe80::1%25lo]", "[fe80::1]", "[fc00::1]", "[fdff::1]", "[fec0::1]", "100.64.0.1", "100.127.255.255",
	// metadata services
	"169.254.169.254", "0xa9fea9fe", "2852039166", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "[fd00:ec2::254]", "[fe80::a9fe:a9fe%25lo]",
	// tests, documentation, multicast, broadcast, unassigned
	"192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
	"[ff02::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[5f00::1]", "[2001:20::1]", "[4000::1]",
}

func TestGuardDirect(t *testing.T) {
	if len(denied) < 60 {
		t.Fatalf("%d spellings", len(denied))
	}
	for _, resolver := range []string{"the machine's", "Go's"} {
		tr := newTrap(t)
		if resolver == "Go's" {
			resolve(t, nil)
		}
		client, refused := fetch.NewClient(false, nil), 0
		for _, host := range denied {
			err := get(t, client, "http://"+host+":"+tr.port+"/")
			if err == nil {
				t.Errorf("%s was reached", host)
				continue
			}
			if reason := fetch.Plainly(err); strings.HasPrefix(reason, "refused to connect to ") {
				refused++
				plain(t, reason)
			} else if ip, e := netip.ParseAddr(strings.NewReplacer("[", "", "]", "", "%25", "%").Replace(host)); e == nil && ip.IsValid() {
				t.Errorf("%s: %s", host, reason)
			}
		}
		t.Logf("%s resolver: %d of %d refused, the others are no names", resolver, refused, len(denied))
		if n := tr.count.Load(); n != 0 {
			t.Errorf("%d connections", n)
		}
	}
}

// TestGuardStream: the same for a WebSocket.
func TestGuardStream(t *testing.T) {
	t.Parallel()
	tr := newTrap(t)
	for _, host := range denied {
		if _, err := url.Parse("http://" + host + ":1/"); err != nil || strings.Contains(host, "%") { // not even a URL to the language
			continue
		}
		src := source(t, "1m", fmt.Sprintf("stream { url = %q }", "ws://"+host+":"+tr.port+"/"), jsonDecode)
		said := log{said: make(chan struct{}, 1)}
		s, err := fetch.NewStream(src, fetch.Options{Log: slog.New(slog.NewTextHandler(&said, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Run(ctx, func([]record.Record) { t.Errorf("%s gave a record", host) })
		}()
		testkit.Receive(t, said.said, "word of "+host)
		plain(t, s.Down(time.Time{}).Error())
		cancel()
		<-ended
	}
	if n := tr.count.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// TestGuardRedirect: a server that may be reached redirects to one that may not. The client of the sources refuses any other
// host; here it is made to follow, to see that the guard alone is enough.
func TestGuardRedirect(t *testing.T) {
	t.Parallel()
	tr := newTrap(t)
	to := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}))
	defer s.Close()
	client := fetch.NewClient(false, []string{s.Listener.Addr().String()})
	check := client.CheckRedirect
	for _, host := range denied {
		to = "http://" + host + ":" + tr.port + "/"
		for _, client.CheckRedirect = range []func(*http.Request, []*http.Request) error{check, nil} {
			err := get(t, client, s.URL)
			if err == nil {
				t.Errorf("%s was reached", host)
				continue
			}
			plain(t, fetch.Plainly(err))
		}
	}
	if n := tr.count.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// TestGuardRebinding: what counts is the address that is dialled, at each attempt, whatever the name gave before.
func TestGuardRebinding(t *testing.T) {
	tr := newTrap(t)
	answers := map[string][][]string{
		"private.test":  {{"10.0.0.1"}, {"127.0.0.1"}},
		"appears.test":  {{}, {"127.0.0.1"}},
		"several.test":  {{"10.0.0.1", "169.254.169.254", "::1", "fe80::1", "127.0.0.1"}},
		"mapped.test":   {{"::ffff:127.0.0.1"}},
		"nat64.test":    {{"64:ff9b::7f00:1"}},
		"zero.test":     {{"0.0.0.0"}, {"::"}},
		"metadata.test": {{"169.254.169.254"}, {"168.63.129.16"}, {"fd00:ec2::254"}, {"100.100.100.200"}},
	}
	n := resolve(t, answers)
	var hosts []string
	for name := range answers {
		hosts = append(hosts, name)
	}
	client := fetch.NewClient(false, nil)
	for _, name := range hosts {
		for range 5 {
			err := get(t, client, "http://"+name+":"+tr.port+"/")
			if err == nil {
				t.Errorf("%s was reached", name)
				continue
			}
			reason := fetch.Plainly(err)
			if !strings.HasPrefix(reason, "refused to connect to "+name+":"+tr.port+": ") && !strings.HasPrefix(reason, "the name "+name+" is not known") {
				t.Errorf("%s: %s", name, reason)
			}
		}
	}
	if n.asked < 5*len(hosts) {
		t.Errorf("the resolver was asked %d times", n.asked)
	}
	if n := tr.count.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// TestAllowPrivate: an exception is one host and one port, as the URL has them.
func TestAllowPrivate(t *testing.T) {
	tr, other := newTrap(t), newTrap(t)
	resolve(t, map[string][][]string{"inside.test": {{"127.0.0.1"}}, "also.test": {{"127.0.0.1"}}})
	for _, c := range []struct {
		url   string
		allow string
		want  bool
	}{
		{"http://127.0.0.1:" + tr.port, "127.0.0.1:" + tr.port, true},
		{"http://127.0.0.1:" + tr.port, "127.0.0.1:" + other.port, false},
		{"http://127.0.0.1:" + tr.port, "127.0.0.1", false},
		{"http://127.0.0.1:" + tr.port, ":" + tr.port, false},
		{"http://127.0.0.1:" + tr.port, "localhost:" + tr.port, false},
		{"http://127.0.0.2:" + tr.port, "127.0.0.1:" + tr.port, false},
		{"http://localhost:" + tr.port, "localhost:" + tr.port, true},
		{"http://inside.test:" + tr.port, "inside.test:" + tr.port, true},
		{"http://also.test:" + tr.port, "inside.test:" + tr.port, false},
		{"http://inside.test:" + tr.port, "127.0.0.1:" + tr.port, false},
		{"http://inside.test:" + other.port, "inside.test:" + tr.port, false},
	} {
		before := tr.count.Load() + other.count.Load()
		client := fetch.NewClient(false, []string{c.allow})
		err := get(t, client, c.url)
		client.CloseIdleConnections()
		if (err == nil) != c.want {
			t.Errorf("%s with %s: %v", c.url, c.allow, err)
		}
		if n := tr.count.Load() + other.count.Load() - before; (n > 0) != c.want {
			t.Errorf("%s with %s: %d connections", c.url, c.allow, n)
		}
	}
	// The refusal says what to write.
	reason := fetch.Plainly(get(t, fetch.NewClient(false, nil), "http://inside.test:"+tr.port))
	if want := fmt.Sprintf(`refused to connect to inside.test:%s: 127.0.0.1 is not a public address. If you trust it: allow_private = ["inside.test:%s"]`, tr.port, tr.port); reason != want {
		t.Errorf("%s\nwant %s", reason, want)
	}
}

func TestPublic(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1", "168.63.129.15", "169.253.0.1", "172.15.255.255", "172.32.0.0", "192.0.1.1", "192.167.0.1", "198.17.255.255", "198.20.0.1", "223.255.255.255",
		"2606:4700::1111", "2a00:1450::1", "2001:200::1", "3ffe::1", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1",
	} {
		if !fetch.Public(netip.MustParseAddr(text)) {
			t.Errorf("%s is public", text)
		}
	}
	if fetch.Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}
