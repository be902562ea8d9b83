package serve_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/cryptoviz/cryptoviz/engine/serve"
	"github.com/cryptoviz/cryptoviz/engine/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func well(context.Context) ([]string, error) { return nil, nil }

func get(t *testing.T, h http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w
}

func TestPaths(t *testing.T) {
	t.Parallel()
	ill := func(context.Context) ([]string, error) {
		return []string{"the retention policy fails"}, errors.Join(errors.New("the database does not answer"), errors.New("worker binance waits: table raw_crypto_data does not exist"))
	}
	for name, c := range map[string]struct {
		ready        func(context.Context) ([]string, error)
		method, path string
		code         int
		body         string
	}{
		"alive":            {well, "GET", "/healthz", 200, "ok\n"},
		"alive, not ready": {ill, "GET", "/healthz", 200, "ok\n"},
		"ready":            {well, "GET", "/readyz", 200, "ok\n"},
		"not ready":        {ill, "GET", "/readyz", 503, "the database does not answer\nworker binance waits: table raw_crypto_data does not exist\nwarning: the retention policy fails\n"},
		"ready, warnings":  {func(context.Context) ([]string, error) { return []string{"a", "b"}, nil }, "GET", "/readyz", 200, "ok\nwarning: a\nwarning: b\n"},
		"ready, head":      {well, "HEAD", "/readyz", 200, "ok\n"},
		"another path":     {well, "GET", "/debug/pprof/", 404, "404 page not found\n"},
		"the root":         {well, "GET", "/", 404, "404 page not found\n"},
		"under a path":     {well, "GET", "/healthz/x", 404, "404 page not found\n"},
		"a change":         {well, "POST", "/metrics", 405, "Method Not Allowed\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := get(t, serve.Handler(c.ready), c.method, c.path)
			if w.Code != c.code || w.Body.String() != c.body {
				t.Errorf("got %d %q", w.Code, w.Body)
			}
		})
	}
}

func TestReadyIsAskedWithALimit(t *testing.T) {
	t.Parallel()
	var left time.Duration
	get(t, serve.Handler(func(ctx context.Context) ([]string, error) {
		end, _ := ctx.Deadline()
		left = time.Until(end)
		return nil, nil
	}), "GET", "/readyz")
	if left <= 0 || left > 3*time.Second {
		t.Errorf("it may take %v", left)
	}
}

func TestMetricsArePrometheusText(t *testing.T) {
	t.Parallel()
	lag := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "cryptoviz_lag_records", Help: "Records \"that\" wait.\nIn all."}, []string{"source"})
	lag.WithLabelValues("bi\"na\\nce\n").Set(3)
	w := get(t, serve.Handler(well, lag), "GET", "/metrics")
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("got %d, %s", w.Code, w.Header())
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	f := families["cryptoviz_lag_records"]
	if f == nil || f.GetMetric()[0].GetGauge().GetValue() != 3 || f.GetMetric()[0].GetLabel()[0].GetValue() != "bi\"na\\nce\n" || families["go_goroutines"] == nil {
		t.Errorf("read %v of %d families", f, len(families))
	}
}

// broken reports a metric that cannot be written.
type broken struct{ d *prometheus.Desc }

func (b broken) Describe(c chan<- *prometheus.Desc) { c <- b.d }
func (b broken) Collect(c chan<- prometheus.Metric) {
	c <- prometheus.NewInvalidMetric(b.d, errors.New("postgres://me:geheim@db/m does not answer"))
}

func TestOneBrokenMetricHidesNoOther(t *testing.T) {
	t.Parallel()
	w := get(t, serve.Handler(well, broken{prometheus.NewDesc("cryptoviz_broken", "x", nil, nil)}), "GET", "/metrics")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "\ngo_goroutines ") || strings.Contains(w.Body.String(), "geheim") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestListenTellsOfATakenPort(t *testing.T) {
	t.Parallel()
	first, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	for addr, want := range map[string]string{
		first.Addr().String(): "address already in use",
		"127.0.0.1":           "missing port in address",
		"127.0.0.1:notaport":  "unknown port",
	} {
		_, err := serve.Listen(t.Context(), addr)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "listen for metrics on "+addr) ||
			!strings.HasSuffix(err.Error(), `: choose another address with --listen HOST:PORT, or none with --listen ""`) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// started runs a server; stop ends its context and returns what Run said.
func started(t *testing.T, h http.Handler) (url string, stop func() error) {
	t.Helper()
	l, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve.Run(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(cancel)
	return "http://" + l.Addr().String(), func() error {
		cancel()
		return testkit.Receive(t, done, "end of Run")
	}
}

func ask(t *testing.T, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestRunAnswersWhatIsUnderWayAndEnds(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	url, stop := started(t, serve.Handler(func(context.Context) ([]string, error) {
		close(asked)
		<-answer
		return nil, nil
	}))
	if body, err := ask(t, url+"/healthz"); err != nil || body != "ok\n" {
		t.Fatalf("got %q, %v", body, err)
	}
	got := make(chan string, 1)
	go func() {
		body, _ := ask(t, url+"/readyz")
		got <- body
	}()
	<-asked
	time.AfterFunc(50*time.Millisecond, func() { close(answer) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if body := <-got; body != "ok\n" {
		t.Errorf("the request under way got %q", body)
	}
	if _, err := ask(t, url+"/healthz"); err == nil {
		t.Error("it still answers")
	}
}

// TestRunEndsInSpiteOfARequest has a request that never ends by itself.
func TestRunEndsInSpiteOfARequest(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	url, stop := started(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	got := make(chan error, 1)
	go func() {
		_, err := ask(t, url)
		got <- err
	}()
	<-asked
	if err := stop(); err != nil {
		t.Error(err)
	}
	if testkit.Receive(t, got, "end of the connection") == nil {
		t.Error("the request was answered")
	}
}

func TestRunTellsWhyItCannotGoOn(t *testing.T) {
	t.Parallel()
	l, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	err = serve.Run(t.Context(), l, serve.Handler(well), slog.New(slog.DiscardHandler))
	if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "serve metrics: ") {
		t.Errorf("got %v", err)
	}
}
