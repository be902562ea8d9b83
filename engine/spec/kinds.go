package spec

import "github.com/hashicorp/hcl/v2"

// Kinds are the kinds of objects that a pipeline declares and apply makes, in the order in which it makes them.
var Kinds = []string{"topic", "table", "view", "aggregate", "role", "folder", "datasource", "dashboard", "alert"}

// Block is where an object is declared.
type Block struct {
	Kind, Name string
	Range      hcl.Range
}

// Address is kind.name.
func (b Block) Address() string { return b.Kind + "." + b.Name }

// Blocks lists the objects of all Kinds, in their order.
func (p *Pipeline) Blocks() (out []Block) {
	for _, x := range p.Topics {
		out = append(out, Block{"topic", x.Name, x.Range})
	}
	for _, x := range p.Tables {
		out = append(out, Block{"table", x.Name, x.Range})
	}
	for _, x := range p.Views {
		out = append(out, Block{"view", x.Name, x.Range})
	}
	for _, x := range p.Aggregates {
		out = append(out, Block{"aggregate", x.Name, x.Range})
	}
	for _, x := range p.Roles {
		out = append(out, Block{"role", x.Name, x.Range})
	}
	for _, x := range p.Folders {
		out = append(out, Block{"folder", x.Name, x.Range})
	}
	for _, x := range p.DataSources {
		out = append(out, Block{"datasource", x.Name, x.Range})
	}
	for _, x := range p.Dashboards {
		out = append(out, Block{"dashboard", x.Name, x.Range})
	}
	for _, x := range p.Alerts {
		out = append(out, Block{"alert", x.Name, x.Range})
	}
	return out
}
