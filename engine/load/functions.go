package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"slices"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/cryptoviz/cryptoviz/engine/diag"
	"github.com/cryptoviz/cryptoviz/engine/expr"
	"github.com/cryptoviz/cryptoviz/engine/limits"
	"github.com/cryptoviz/cryptoviz/engine/units"
)

// declaredMark marks besides what pipeline.hcl itself calls sensitive.
const declaredMark = "declared sensitive"

// constantFunctions are the functions of everything that is evaluated once, when the files are read.
func constantFunctions() map[string]function.Function {
	return map[string]function.Function{
		"abs": stdlib.AbsoluteFunc, "can": tryfunc.CanFunc, "ceil": stdlib.CeilFunc, "coalesce": stdlib.CoalesceFunc,
		"compact": stdlib.CompactFunc, "concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc,
		"distinct": stdlib.DistinctFunc,
		"flatten":  stdlib.FlattenFunc, "floor": stdlib.FloorFunc, "format": stdlib.FormatFunc, "join": stdlib.JoinFunc,
		"jsondecode": stdlib.JSONDecodeFunc, "jsonencode": stdlib.JSONEncodeFunc, "keys": stdlib.KeysFunc,
		"length": expr.LengthFunc,
		"lookup": stdlib.LookupFunc, "lower": stdlib.LowerFunc, "max": stdlib.MaxFunc, "merge": stdlib.MergeFunc,
		"min":     stdlib.MinFunc,
		"replace": stdlib.ReplaceFunc, "reverse": stdlib.ReverseListFunc, "slice": stdlib.SliceFunc,
		"sort":  stdlib.SortFunc,
		"split": stdlib.SplitFunc, "substr": stdlib.SubstrFunc,
		"tolist": stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)),
		"tobool": stdlib.MakeToFunc(cty.Bool), "tonumber": stdlib.MakeToFunc(cty.Number),
		"toset":    stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
		"tostring": stdlib.MakeToFunc(cty.String), "trim": stdlib.TrimFunc, "trimspace": stdlib.TrimSpaceFunc,
		"try":   tryfunc.TryFunc,
		"upper": stdlib.UpperFunc, "urlencode": urlencodeFunc, "values": stdlib.ValuesFunc,
	}
}

// pipelineFunctions adds what only pipeline.hcl may do: read the environment and files beside it.
func pipelineFunctions(l *loader) map[string]function.Function {
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
			if l.opt.Env != nil {
				if v, ok := l.opt.Env(name); ok && v != "" {
					return cty.StringVal(v).Mark(limits.SensitiveMark), nil
				}
			}
			if len(args) == 2 {
				if v, _ := limits.Unmark(args[1]); v.AsString() == "" {
					l.unset = append(l.unset, unsetEnv(name).Error())
				}
				return args[1], nil
			}
			l.unset = append(l.unset, unsetEnv(name).Error())
			return cty.NilVal, fmt.Errorf("%w; set it (see .env.example), or give a default: env(%q, \"…\")",
				unsetEnv(name), units.Clip(name))
		},
	})
	out["file"] = function.New(&function.Spec{
		Description: "file(PATH): the text of a file, relative to pipeline.hcl.",
		Params:      []function.Parameter{{Name: "path", Type: cty.String}},
		Type:        function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			name := args[0].AsString()
			src, err := l.readFile(name)
			switch {
			case err != nil:
				return cty.NilVal, err
			case len(src) > limits.MaxFile:
				return cty.NilVal, fmt.Errorf("the file %q is larger than %d bytes (1 MiB)", units.Clip(name),
					limits.MaxFile)
			case !utf8.Valid(src) || bytes.IndexByte(src, 0) >= 0:
				return cty.NilVal, fmt.Errorf("the file %q is not a UTF-8 text", units.Clip(name))
			}
			if len(bytes.TrimSpace(src)) == 0 {
				l.unset = append(l.unset, fmt.Sprintf("the file %q is empty", units.Clip(name)))
			}
			return cty.StringVal(string(src)), nil
		},
	})
	return out
}

// unsetEnv is an environment variable that is not set, or empty.
type unsetEnv string

func (u unsetEnv) Error() string {
	return "the environment variable " + diag.Visible(units.Clip(string(u))) + " is not set"
}

// onlyUnset tells whether nothing but environment variables that are not set kept an expression from having a value.
func onlyUnset(diags hcl.Diagnostics) bool {
	return !slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool {
		call, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](d)
		if !ok {
			return d.Severity == hcl.DiagError
		}
		_, unset := errors.AsType[unsetEnv](call.FunctionCallError())
		return !unset
	})
}

// readFile reads a file of the bundle, at most MaxFile+1 bytes of it, and says in plain words why it cannot.
func (l *loader) readFile(name string) ([]byte, error) {
	clean, shown := path.Clean(name), units.Clip(name)
	if name == "" {
		return nil, errors.New("the path is empty")
	}
	if !fs.ValidPath(clean) {
		return nil, fmt.Errorf("the path %q leaves the folder of pipeline.hcl; use a path inside it, such as "+
			"\"sql/rollup_hourly.sql\"", shown)
	}
	info, err := fs.Stat(l.fsys, clean) // before opening: a pipe would wait for its writer
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file %q", shown)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the file %q may not be read by this user: check its permissions", shown)
	case err != nil:
		return nil, fmt.Errorf("read %q: %w", shown, pathless(err))
	case info.IsDir():
		return nil, fmt.Errorf("%q is a folder, not a file", shown)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%q is not an ordinary file", shown)
	}
	f, err := l.fsys.Open(clean)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("the file %q may not be read by this user: check its permissions", shown)
	}
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", shown, pathless(err))
	}
	defer func() { _ = f.Close() }()
	src, err := io.ReadAll(io.LimitReader(f, limits.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", shown, pathless(err))
	}
	if l.read += len(src); l.read > maxBundle {
		return nil, fmt.Errorf("the files of this pipeline have more than %d bytes together", maxBundle)
	}
	return src, nil
}

// pathless takes the path off an error that names it again.
func pathless(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

var urlencodeFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "text", Type: cty.String}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		return cty.StringVal(url.QueryEscape(args[0].AsString())), nil
	},
})
