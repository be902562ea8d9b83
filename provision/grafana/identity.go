package grafana

import (
	"context"
	"fmt"
	"strings"
)

// Identity tells this Grafana from every other one: where it is, and which org. Grafana has no id of its own.
func (o *Org) Identity(ctx context.Context) (string, error) {
	s, err := o.load(ctx)
	if err != nil {
		return "", err
	}
	where := *o.client.base
	where.Host = strings.ToLower(where.Host)
	return fmt.Sprintf("%s org %d", where.String(), s.org), nil
}
