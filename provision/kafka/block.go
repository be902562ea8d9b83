package kafka

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// Block returns the topic block that declares a topic as it is: what is set on it, and not what it has by default.
func Block(ctx context.Context, c *Cluster, name string) (string, error) {
	if !nameForm.MatchString(name) {
		return "", fmt.Errorf("topic %s: pipeline.hcl has no place for this name: it takes lower case letters, digits "+
			"and _, 48 at most", name)
	}
	t, err := c.whole(ctx, name)
	switch {
	case err != nil:
		return "", err
	case t == nil:
		return "", fmt.Errorf("topic %s does not exist", name)
	case t.unread:
		return "", fmt.Errorf("this Kafka user may not read the config of topic %s: %w", name,
			grant("DescribeConfigs", name))
	case reserved(t):
		return "", fmt.Errorf("topic %s belongs to Kafka itself", name)
	}
	file := hclwrite.NewEmptyFile()
	body := file.Body().AppendNewBlock("topic", []string{name}).Body()
	_, replication := t.replication()
	body.SetAttributeValue(partitionsAttr, cty.NumberIntVal(int64(len(t.partitions))))
	body.SetAttributeValue(replicationAttr, cty.NumberIntVal(int64(replication)))
	rest := map[string]cty.Value{}
	for _, key := range sortKeys(slices.Collect(maps.Keys(t.config))) {
		s := t.config[key]
		if !s.own() {
			continue
		}
		if attrOf(key) != key && expressible(key, s.value) {
			body.SetAttributeValue(attrOf(key), cty.StringVal(friendly(key, s.value)))
		} else {
			rest[key] = cty.StringVal(s.value)
		}
	}
	if len(rest) > 0 {
		body.SetAttributeValue("config", cty.ObjectVal(rest))
	}
	return string(hclwrite.Format(file.Bytes())), nil
}

// expressible tells whether the word for a key can say this value; else it goes into config.
func expressible(key, value string) bool {
	n, err := strconv.ParseInt(value, 10, 64)
	switch key {
	case retentionMs:
		return err == nil && n >= time.Minute.Milliseconds() && n <= (100*365*24*time.Hour).Milliseconds()
	case retentionBytes:
		return err == nil && n >= 0
	}
	return value != ""
}

// whole is topic for import: the first call reads the config of every topic.
func (c *Cluster) whole(ctx context.Context, name string) (*topic, error) {
	defer c.lock()()
	s, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	var unread []string
	for _, t := range s.topics {
		if t.config == nil && t.denied == nil && !reserved(t) {
			unread = append(unread, t.name)
		}
	}
	slices.Sort(unread)
	if err := c.configure(ctx, s, unread); err != nil {
		return nil, err
	}
	return c.find(ctx, name)
}
