package load

import (
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/spec"
)

var hostForm = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})$`)

var groupForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)

func (l *loader) kafka(blocks hcl.Blocks) {
	if len(blocks) == 0 {
		l.absent(l.p.File, "No kafka block", "Say where the brokers are: kafka { brokers = [\"localhost:9092\"] }.")
		return
	}
	b := l.open(blocks[0], &hcl.BodySchema{Attributes: attrs([]string{"brokers"}, "tls", "sasl_mechanism", "sasl_user",
		"sasl_password", "group_prefix", "buffer")}, l.ctx)
	k := spec.Kafka{
		TLS: b.flag("tls", false), SASLMechanism: b.text("sasl_mechanism", ""), SASLUser: b.text("sasl_user", ""),
		SASLPassword: b.password("sasl_password", "KAFKA_PASSWORD"), GroupPrefix: b.text("group_prefix", "cryptoviz."),
		Buffer: b.size("buffer", 64<<20, 64<<10, 16<<30), Range: b.rng,
	}
	for _, broker := range b.texts("brokers") {
		if broker = strings.TrimSpace(broker); broker == "" {
			continue
		}
		if !hostPort(broker) {
			l.fail(b.rangeOf("brokers"), "Not a broker", "%s is not HOST:PORT, such as \"localhost:9092\".",
				b.show("brokers", broker))
		}
		k.Brokers = append(k.Brokers, broker)
	}
	if b.good["brokers"] && len(k.Brokers) == 0 {
		l.fail(b.rangeOf("brokers"), "No brokers", "The list is empty: brokers = [\"localhost:9092\"].")
	}
	mechanisms := []string{"plain", "scram-sha-256", "scram-sha-512"}
	if k.SASLMechanism != "" && !slices.Contains(mechanisms, k.SASLMechanism) {
		l.fail(b.rangeOf("sasl_mechanism"), "Unknown SASL mechanism", "%s is not known.%s",
			b.show("sasl_mechanism", k.SASLMechanism), b.suggest("sasl_mechanism", k.SASLMechanism, mechanisms))
	}
	if k.SASLMechanism != "" && (!b.has("sasl_user") || !b.has("sasl_password")) {
		l.fail(b.rng, "No SASL user", "sasl_mechanism is set: give sasl_user and sasl_password too.")
	}
	if k.SASLMechanism == "" && (b.has("sasl_user") || b.has("sasl_password")) && !b.has("sasl_mechanism") {
		l.fail(b.rng, "No SASL mechanism", "sasl_user and sasl_password need sasl_mechanism = \"scram-sha-512\" (%s).",
			strings.Join(mechanisms, ", "))
	}
	if !groupForm.MatchString(k.GroupPrefix) {
		l.fail(b.rangeOf("group_prefix"), "Not a group prefix",
			"It has at least one of letters, digits, '.', '_' and '-', and is at most 100 long.")
	}
	l.p.Kafka = k
}

// hostPort tells whether s is a host or an address, with a port or without.
func hostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "9092"
	}
	n, err := strconv.Atoi(port)
	return err == nil && n > 0 && n < 65536 && (hostForm.MatchString(host) || net.ParseIP(host) != nil)
}

// literal tells whether a value stands in the file itself.
func literal(expr hcl.Expression) bool {
	node, ok := expr.(hclsyntax.Expression)
	if !ok {
		return false
	}
	out := len(expr.Variables()) == 0
	_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok && (call.Name == "env" || call.Name == "file") {
			out = false
		}
		return nil
	})
	return out
}

// stands tells whether a value that shall come from outside stands in the file: as it is, as the default of a variable,
// or as what env() falls back to.
func (l *loader) stands(expr hcl.Expression) bool {
	if call, ok := expr.(*hclsyntax.FunctionCallExpr); ok && call.Name == "env" && len(call.Args) == 2 {
		return l.stands(call.Args[1])
	}
	return literal(expr) && !nothing(expr) || l.defaulted(expr)
}

// defaulted tells whether an expression is a variable that has its value from a default in the file.
func (l *loader) defaulted(expr hcl.Expression) bool {
	kind, name := reference(expr)
	return kind == "var" && l.defaults[name]
}

func (l *loader) database(blocks hcl.Blocks) {
	if len(blocks) == 0 {
		l.absent(l.p.File, "No database block", "Say where PostgreSQL is: database { url = env(\"DATABASE_URL\") }.")
		return
	}
	b := l.open(blocks[0], &hcl.BodySchema{Attributes: attrs([]string{"url"}, "on_missing")}, l.ctx)
	d := spec.Database{OnMissing: b.text("on_missing", "error"), Range: b.rng}
	if a := b.content.Attributes["url"]; a != nil {
		d.URL = b.unsettable("url", a.Expr)
		if b.good["url"] && (d.URL.Unset() == "" || nothing(a.Expr)) && !l.databaseURL(b, d.URL.Reveal()) {
			d.URL = spec.Secret{} // that it is none is said once
		}
	}
	if words := []string{"error", "degrade"}; !slices.Contains(words, d.OnMissing) {
		l.fail(b.rangeOf("on_missing"), "Unknown value", "on_missing is \"error\" or \"degrade\".%s",
			b.suggest("on_missing", d.OnMissing, words))
		d.OnMissing = "error"
	}
	l.p.Database = d
}

// databaseURL checks the form of a URL or a keyword/value string without ever showing it; false: it has none.
func (l *loader) databaseURL(b *block, text string) bool {
	r := b.rangeOf("url")
	if strings.TrimSpace(text) == "" {
		l.fail(r, "No database URL", "The value is empty: url = env(\"DATABASE_URL\").")
		return false
	}
	u, err := url.Parse(text)
	isURL := err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql")
	if !isURL && (strings.Contains(text, "://") || !strings.Contains(text, "=")) {
		l.unseen(r, "Not a PostgreSQL URL",
			"Write postgres://user@host:5432/name?sslmode=verify-full; the password comes with it from the environment: url = env(\"DATABASE_URL\"). A special character of the password is percent-encoded.")
		return false
	}
	password := strings.Contains(text, "password")
	if isURL {
		_, password = u.User.Password()
		password = password || u.Query().Has("password")
	}
	if password && (!b.secret["url"] || l.defaulted(b.content.Attributes["url"].Expr)) {
		l.unseen(r, "Password in the file",
			"Take the whole URL from the environment: url = env(\"DATABASE_URL\"). Change the password, if this file was ever shared.")
	}
	return true
}

// unseen reports a mistake whose line may hold a secret.
func (l *loader) unseen(r hcl.Range, summary, format string, args ...any) {
	d := diag.Problem(r, summary, format, args...)
	d.Extra = diag.WithoutLine{}
	l.add(d)
}

const forever = 100 * 365 * 24 * time.Hour

var topicWords = map[string][]string{
	"cleanup_policy": {"delete", "compact", "compact,delete"},
	"compression":    {"producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"},
}

func (l *loader) topic(raw *hcl.Block, seen map[string]hcl.Range) {
	name, ok := l.name(raw, seen)
	b := l.open(raw, &hcl.BodySchema{Attributes: attrs(nil, "partitions", "replication", "retention", "retention_bytes",
		"cleanup_policy", "compression", "config")}, l.ctx)
	t := &spec.Topic{
		Name: name, Partitions: int32(b.integer("partitions", 1, 1, 10_000)),
		Replication: int16(b.integer("replication", 1, 1, 32)),
		Config:      map[string]string{}, Range: b.rng,
	}
	maps.Copy(t.Config, b.textMap("config"))
	set := func(attr, key, value string) {
		if !b.good[attr] {
			return
		}
		if words := topicWords[attr]; words != nil && !slices.Contains(words, value) {
			l.fail(b.rangeOf(attr), "Unknown value", "%s.%s: Kafka does not know %s.%s", b.what, attr,
				b.show(attr, value), b.suggest(attr, value, words))
		}
		if _, twice := t.Config[key]; twice {
			l.fail(b.rangeOf(attr), "Set twice", "%s says %s, and config says %q too. Keep one.", b.what, attr, key)
		}
		t.Config[key] = value
	}
	set("retention", "retention.ms", strconv.FormatInt(b.duration("retention", 0, time.Minute, forever).Milliseconds(),
		10))
	set("retention_bytes", "retention.bytes", strconv.FormatInt(b.size("retention_bytes", 0, 1, 1<<50), 10))
	policy := b.text("cleanup_policy", "")
	if policy == "delete,compact" { // to Kafka the order means nothing
		policy = "compact,delete"
	}
	set("cleanup_policy", "cleanup.policy", policy)
	set("compression", "compression.type", b.text("compression", ""))
	if ok {
		l.topics[name] = t
		l.p.Topics = append(l.p.Topics, t)
	}
}
