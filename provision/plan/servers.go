package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Servers is where the objects of a pipeline live. "" is not known: the server was not reached, or does not say.
type Servers struct {
	Kafka    string   `json:"kafka_cluster,omitempty"` // the id of the cluster
	Database Database `json:"database"`
	Grafana  string   `json:"grafana,omitempty"` // URL and org: Grafana has no id of its own
}

// Database tells a database from every other one.
type Database struct {
	Name   string `json:"name,omitempty"`
	System string `json:"system,omitempty"` // system_identifier of the server; some services keep it to themselves
	OID    uint32 `json:"oid,omitempty"`
	Ledger string `json:"ledger,omitempty"` // random id in cryptoviz.meta, since the first apply; a copy has it, too
}

func (d Database) String() string { return fmt.Sprintf("%s (%s)", d.Name, d.identity()) }

func (d Database) identity() string {
	system := ""
	if d.System != "" {
		system = "system " + d.System + ", "
	}
	ledger := "no ledger yet"
	if d.Ledger != "" {
		ledger = "ledger " + d.Ledger
	}
	return fmt.Sprintf("%soid %d, %s", system, d.OID, ledger)
}

// Lines names the servers, one a line.
func (s Servers) Lines() (out []string) {
	if s.Kafka != "" {
		out = append(out, "Kafka cluster "+s.Kafka)
	}
	if s.Database.OID != 0 {
		out = append(out, "PostgreSQL database "+s.Database.Name+"\n   ("+s.Database.identity()+")")
	}
	if s.Grafana != "" {
		out = append(out, "Grafana "+s.Grafana)
	}
	return out
}

// other tells whether it is another database. An empty ledger is that of the time before the first apply.
func (d Database) other(now Database) bool {
	switch {
	case d.OID == 0 || now.OID == 0:
		return false
	case d.OID != now.OID, d.Ledger != "" && d.Ledger != now.Ledger:
		return true
	case d.System != "" && now.System != "":
		return d.System != now.System
	}
	return d.Ledger == "" && d.Name != now.Name
}

// Place is the part of Servers that ledger rows of an object name; "" when that is not known.
func (s Servers) Place(address string) string {
	kind, _, _ := strings.Cut(address, ".")
	switch SystemOf(kind) {
	case Kafka:
		return s.Kafka
	case Grafana:
		return s.Grafana
	case Postgres:
		if d := s.Database; d.OID != 0 {
			return fmt.Sprintf("%s/%d", cmp.Or(d.System, "?"), d.OID)
		}
	}
	return ""
}

// The systems that objects live on.
const (
	Kafka    = "Kafka"
	Postgres = "PostgreSQL"
	Grafana  = "Grafana"
)

var systems = []struct {
	name  string
	kinds []string
}{
	{Kafka, []string{"topic"}},
	{Postgres, []string{"engine", "table", "view", "aggregate", "role", "rollup"}},
	{Grafana, []string{"folder", "datasource", "dashboard", "alert"}},
}

// SystemOf names the system that a kind of object lives on: "Kafka", "PostgreSQL" or "Grafana".
func SystemOf(kind string) string {
	for _, s := range systems {
		if slices.Contains(s.kinds, kind) {
			return s.name
		}
	}
	return ""
}

// KindsOf lists the kinds of objects of a system.
func KindsOf(system string) []string {
	for _, s := range systems {
		if s.name == system {
			return s.kinds
		}
	}
	return nil
}

// Moved is a server that is another one than it was.
type Moved struct {
	System string `json:"system"`
	Then   string `json:"then"`
	Now    string `json:"now"`
}

func (m Moved) String() string {
	what := map[string]string{"Kafka": "cluster ", "PostgreSQL": "database "}[m.System]
	return fmt.Sprintf("%s was %s%s, and is %s%s", m.System, what, m.Then, what, m.Now)
}

// Moved compares the servers of an agreement with those that are there now. What is not known is not compared.
func (s Servers) Moved(now Servers) (out []Moved) {
	if s.Kafka != "" && now.Kafka != "" && s.Kafka != now.Kafka {
		out = append(out, Moved{"Kafka", s.Kafka, now.Kafka})
	}
	if s.Database.other(now.Database) {
		out = append(out, Moved{"PostgreSQL", s.Database.String(), now.Database.String()})
	}
	if s.Grafana != "" && now.Grafana != "" && s.Grafana != now.Grafana {
		out = append(out, Moved{"Grafana", s.Grafana, now.Grafana})
	}
	return out
}
