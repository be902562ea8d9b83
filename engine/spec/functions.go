package spec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"

	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// sensitiveMark marks a value from the environment or of a sensitive variable.
const sensitiveMark = "sensitive"

// constantFunctions are the functions of everything that is evaluated once, when the files are read.
func constantFunctions() map[string]function.Function {
	return map[string]function.Function{
		"abs": stdlib.AbsoluteFunc, "can": tryfunc.CanFunc, "ceil": stdlib.CeilFunc, "coalesce": stdlib.CoalesceFunc,
		"compact": stdlib.CompactFunc, "concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc, "distinct": stdlib.DistinctFunc,
		"flatten": stdlib.FlattenFunc, "floor": stdlib.FloorFunc, "format": stdlib.FormatFunc, "join": stdlib.JoinFunc,
		"jsondecode": stdlib.JSONDecodeFunc, "jsonencode": stdlib.JSONEncodeFunc, "keys": stdlib.KeysFunc, "length": lengthFunc,
		"lookup": stdlib.LookupFunc, "lower": stdlib.LowerFunc, "max": stdlib.MaxFunc, "merge": stdlib.MergeFunc, "min": stdlib.MinFunc,
		"replace": stdlib.ReplaceFunc, "reverse": stdlib.ReverseListFunc, "slice": stdlib.SliceFunc, "sort": stdlib.SortFunc,
		"split": stdlib.SplitFunc, "substr": stdlib.SubstrFunc, "tolist": stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)),
		"tonumber": stdlib.MakeToFunc(cty.Number), "toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
		"tostring": stdlib.MakeToFunc(cty.String), "trim": stdlib.TrimFunc, "trimspace": stdlib.TrimSpaceFunc, "try": tryfunc.TryFunc,
		"upper": stdlib.UpperFunc, "urlencode": urlencodeFunc, "values": stdlib.ValuesFunc,
	}
}

// pipelineFunctions adds what only pipeline.hcl may do: read the environment and files beside it.
func pipelineFunctions(fsys fs.FS, env func(string) (string, bool)) map[string]function.Function {
	out := maps.Clone(constantFunctions())
	out["env"] = function.New(&function.Spec{
		Description: "env(NAME) or env(NAME, default): an environment variable; without a default it must be set.",
		Params:      []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam:    &function.Parameter{Name: "default", Type: cty.String, AllowMarked: true},
		Type:        function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if len(args) > 2 {
				return cty.NilVal, errors.New("want env(NAME) or env(NAME, default)")
			}
			name := args[0].AsString()
			if env != nil {
				if v, ok := env(name); ok && v != "" {
					return cty.StringVal(v).Mark(sensitiveMark), nil
				}
			}
			if len(args) == 2 {
				return args[1], nil
			}
			return cty.NilVal, fmt.Errorf("the environment variable %s is not set; set it (see .env.example), or give a default: env(%q, \"…\")", name, name)
		},
	})
	out["file"] = function.New(&function.Spec{
		Description: "file(PATH): the text of a file, relative to pipeline.hcl.",
		Params:      []function.Parameter{{Name: "path", Type: cty.String}},
		Type:        function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			src, err := readBounded(fsys, args[0].AsString())
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(string(src)), nil
		},
	})
	return out
}

// readBounded reads a file of the bundle, at most MaxFile+1 bytes of it, and says in plain words why it cannot.
func readBounded(fsys fs.FS, name string) ([]byte, error) {
	clean := path.Clean(name)
	if !fs.ValidPath(clean) {
		return nil, fmt.Errorf("the path %q leaves the folder of pipeline.hcl; use a path inside it, such as \"sql/rollup_hourly.sql\"", name)
	}
	f, err := fsys.Open(clean)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file %q beside pipeline.hcl", name)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the file %q may not be read by this user: check its permissions", name)
	case err != nil:
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	src, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	return src, nil
}
