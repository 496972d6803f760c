"""The conventions of the code, as laws."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import h2e

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "h2e"
SOURCES = sorted(SRC.rglob("*.py"))

LAYERS = [
    "_warnings", "_statistics", "_parallel", "_slide", "_stains", "_sdata", "_learners", "_ensemble",
    "metrics", "pp", "tl", "get", "pl", "datasets", "cli",
]  # fmt: skip
"""A module imports only from those before it; the reading order of the package."""

NAMESPACES = [
    name
    for name in ("pp", "tl", "get", "metrics", "pl", "datasets")
    if (SRC / name).is_dir() or (SRC / f"{name}.py").exists()
]
HEAVY = ("torch", "scanpy", "squidpy", "sklearn", "skimage", "numba", "matplotlib.pyplot", "pooch", "tifffile")
REAL_DATA = ("datasets.her2st", "datasets.mob", "datasets.visium_mini")
"""They are not everywhere: their examples run where ``$H2E_DATA`` has them."""
MANY_LINES = 250
LONG_FUNCTION = 60


def name_of(path: Path) -> str:
    """Name a source file as pytest shows it."""
    return str(path.relative_to(SRC))


each_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)


@cache
def tree_of(path: Path) -> ast.Module:
    """Parse a source file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def layer_of(path: Path) -> str:
    """Name the module or package at the top level that a file belongs to."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    """Give the dotted name of a source file's module."""
    parts = ("h2e", *path.relative_to(SRC).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(path: Path) -> list[str]:
    """Give the parts of the package that relative imports of a file start from."""
    parts = module_of(path).split(".")
    return parts if path.name == "__init__.py" else parts[:-1]


def imported_modules(path: Path) -> set[str]:
    """List the modules that a file imports anywhere, also inside functions, as absolute dotted names."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = package_of(path)
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names} if base == "h2e" else {base}
    return names


def layers_imported(path: Path) -> set[str]:
    """List the layers of h2e that a file imports from; ``h2e`` itself counts as the layer ``__init__``."""
    parts = [name.split(".") for name in imported_modules(path)]
    inside = {part[1] if len(part) > 1 else "__init__" for part in parts if part[0] == "h2e"}
    return {
        name
        for name in inside
        if name == "__init__" or name in LAYERS or (SRC / name).exists() or (SRC / f"{name}.py").exists()
    }


def modules_of_h2e(path: Path) -> set[str]:
    """List the modules of h2e that a file imports, also those of which it imports a name."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            package = package_of(path)
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
            found |= set() if (SRC.parent / base.replace(".", "/")).is_dir() else {base}
    return found - {module_of(path)}


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """List the functions and methods of a file."""
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def named_functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """List the functions at the top level and the methods: those that others can call."""
    scopes = [tree_of(path), *[node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]]
    return [node for scope in scopes for node in scope.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if has_docstring else 0)


def public_names() -> list[str]:
    """List what users may call, as ``pp.normalize`` or ``Ensemble``."""
    names = []
    for namespace in NAMESPACES:
        module = importlib.import_module(f"h2e.{namespace}")
        names += [f"{namespace}.{name}" for name in getattr(module, "__all__", [])]
    return names + [
        name for name in getattr(h2e, "__all__", []) if name not in NAMESPACES and not name.startswith("__")
    ]


def resolve(name: str) -> object:
    """Fetch a public object by the name that users write after ``h2e.``."""
    *namespace, attribute = name.split(".")
    module = importlib.import_module(".".join(["h2e", *namespace]))
    return getattr(module, attribute)


def public(kind: str) -> list[str]:
    """List the public names that are functions (``"function"``) or classes (``"class"``) of h2e."""
    is_kind = {"function": inspect.isfunction, "class": inspect.isclass}[kind]
    found = []
    for name in public_names():
        try:
            thing = resolve(name)
        except AttributeError:  # its own test names it
            continue
        if is_kind(thing):
            found.append(name)
    return found


def parameters_of(function: object) -> list[inspect.Parameter]:
    """List the parameters of a function or method, ``self`` left out."""
    return [p for p in inspect.signature(function).parameters.values() if p.name not in {"self", "cls"}]


def documented_parameters(docstring: str) -> set[str]:
    """Read the names under Parameters and Other Parameters of a numpydoc docstring."""
    sections = r"^(?:Other )?Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)"
    found = "".join(re.findall(sections, docstring, flags=re.MULTILINE | re.DOTALL))
    headers = re.findall(r"^(\S[^\n]*)$", found, flags=re.MULTILINE)
    return {name.strip().lstrip("*") for header in headers for name in header.split(":")[0].split(",")}


each_name = pytest.mark.parametrize("name", public_names())
each_function = pytest.mark.parametrize("name", public("function"))
each_class = pytest.mark.parametrize("name", public("class"))


# ---- the package
# --------------------------------------------------------------------------------------------------------


def imported_by(code: str) -> set[str]:
    """Names of the modules that are there after some code in a process of its own."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_h2e_imports_nothing_heavy():
    later = {*HEAVY, "anndata", "spatialdata", "pandas", "scipy", "dask", "numpy"}
    assert imported_by("import h2e") & later == set()


def test_what_h2e_exports_imports_nothing_heavy_either():
    assert imported_by("from h2e import *") & {*HEAVY} == set()


def test_h2e_lists_what_it_imports_on_use_and_refuses_other_names():
    assert completed(h2e) == h2e.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'; it has Ensemble, "):
        _ = h2e.nothing


@each_name
def test_every_exported_name_resolves(name: str):
    assert resolve(name) is not None


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_namespace_says_what_it_exports_and_says_it_once(namespace: str):
    exported = list(importlib.import_module(f"h2e.{namespace}").__all__)
    assert len(exported) == len(set(exported))
    assert not any(name.startswith("_") for name in exported)


def completed(module: object) -> list[str]:
    """List what completion offers of a module, which leaves out private names."""
    return [name for name in dir(module) if not name.startswith("_")]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_completion_offers_what_a_namespace_exports_and_nothing_else(namespace: str):
    module = importlib.import_module(f"h2e.{namespace}")
    assert completed(module) == sorted(module.__all__)


def test_the_version_is_that_of_the_project():
    assert h2e.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_every_dependency_is_imported_somewhere_and_every_import_is_a_dependency():
    module_of_distribution = {"pillow": "PIL", "scikit-image": "skimage", "scikit-learn": "sklearn"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", requirement).group() for requirement in project["dependencies"]]
    declared = {module_of_distribution.get(name, name.replace("-", "_")) for name in names}
    imported = {name.split(".")[0] for path in SOURCES for name in imported_modules(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"h2e"}
    optional = {"distributed", "timm", "lazyslide_models"}  # of whoever has a cluster, or names an encoder
    optional |= {"imagecodecs", "openslide", "tifffile"}  # or reads whole-slide files
    carried = {"geopandas", "shapely", "xarray", "zarr"}  # the types and stores of spatialdata's own elements
    assert foreign - declared - carried - optional == set(), "imported, but not in the dependencies of pyproject.toml"
    assert declared - imported == set(), "in the dependencies of pyproject.toml, but never imported"


# ---- the source files
# ---------------------------------------------------------------------------------------------------


@each_source
def test_imports_point_upstream(path: Path):
    layer = layer_of(path)
    if layer == "__init__":
        pytest.skip("the package's table of contents imports every namespace")
    assert layer in LAYERS, f"{layer} has no place in LAYERS"
    below = {name for name in layers_imported(path) if name not in LAYERS[: LAYERS.index(layer) + 1]}
    assert below == set(), f"{layer} imports {sorted(below)}, which come after it"


def test_at_most_three_private_modules_lie_at_the_root():
    assert len([path for path in SRC.glob("_*.py") if path.name != "__init__.py"]) <= 3


@pytest.mark.parametrize("package", sorted(path.parent.name for path in SRC.glob("*/__init__.py")))
def test_no_package_has_a_circle_of_imports(package: str):
    modules = {module_of(path): path for path in (SRC / package).glob("*.py")}
    graph = {name: {other for other in modules_of_h2e(path) if other in modules} for name, path in modules.items()}
    TopologicalSorter(graph).prepare()


@each_source
def test_only_the_door_names_types_of_spatialdata_and_anndata(path: Path):
    if layer_of(path) in {"_sdata", "datasets"}:
        pytest.skip("the door")
    types = {"AnnData", "SpatialData", "GeoDataFrame", "DataTree", "DataArray"}
    shells = {name.split(".")[1] for name in public("function") if name.split(".")[0] == layer_of(path)}
    for function in functions_of(path):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        named = {word for a in arguments if a.annotation for word in re.findall(r"\w+", ast.unparse(a.annotation))}
        assert function.name in shells or not named & types, f"{name_of(path)}:{function.lineno} {function.name}"


@each_source
def test_nothing_heavy_is_imported_outside_of_functions(path: Path):
    def at_import(node: ast.AST) -> list[ast.AST]:
        """Collect the statements that run when the module is imported."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return []
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return [found for child in node.orelse for found in at_import(child)]
        return [node, *[found for child in ast.iter_child_nodes(node) for found in at_import(child)]]

    names = set()
    for node in at_import(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    heavy = names & {name.split(".")[0] for name in HEAVY}
    # a file whose very subject is torch (a network is a class) may import it: the light import above still holds
    allowed = {"torch"} if path.stem in {"mlp", "network", "training"} else set()
    assert heavy - allowed == set()


@each_source
def test_annotations_are_not_evaluated(path: Path):
    if path.name == "__init__.py" and not functions_of(path):
        return  # nothing to annotate, and completion would offer the name
    futures = [node for node in tree_of(path).body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert any(alias.name == "annotations" for node in futures for alias in node.names)


@each_source
def test_source_holds_no_assert_print_bare_except_or_pickle(path: Path):
    found, nodes = [], list(ast.walk(tree_of(path)))
    tensors_only = [
        node.func for node in nodes if isinstance(node, ast.Call) and "weights_only=True" in ast.unparse(node)
    ]
    for node in nodes:
        if isinstance(node, ast.Assert):
            found.append(f"assert in line {node.lineno}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append(f"print in line {node.lineno}")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"bare except in line {node.lineno}")
        elif node in tensors_only:
            continue
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in {
            "torch.load",
            "torch.save",
            "joblib.load",
            "joblib.dump",
        }:
            found.append(f"{ast.unparse(node)} in line {node.lineno}")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append(f"allow_pickle in line {node.value.lineno}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("logging.basicConfig"):
            found.append(f"logging is configured in line {node.lineno}")
    unpicklers = imported_modules(path) & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    assert found == []
    assert unpicklers == set()


@each_source
def test_a_file_holds_one_idea(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MANY_LINES


def test_nearly_all_functions_fit_on_a_screen():
    lengths = {f"{name_of(path)}:{f.name}": length_of(f) for path in SOURCES for f in functions_of(path)}
    long = {name: n for name, n in lengths.items() if n >= LONG_FUNCTION}
    assert len(long) <= 0.05 * len(lengths), long


@each_source
def test_every_function_says_what_it_takes_gives_and_does(path: Path):
    for function in named_functions_of(path):
        if function.name.startswith("__") and function.name != "__call__":
            continue
        where = f"{name_of(path)}:{function.lineno} {function.name}"
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in {"self", "cls"}]
        overloads = any("overload" in ast.unparse(decorator) for decorator in function.decorator_list)
        assert function.returns is not None, f"{where} does not say what it returns"
        assert bare == [], f"{where} does not say what {bare} are"
        assert overloads or ast.get_docstring(function), f"{where} has no docstring"


# ---- the public functions
# -----------------------------------------------------------------------------------------------


@each_function
def test_later_arguments_and_switches_are_keyword_only(name: str):
    parameters = parameters_of(resolve(name))
    assert sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) <= 3
    assert not any(isinstance(p.default, bool) and p.kind is not p.KEYWORD_ONLY for p in parameters)
    assert not any(p.kind in {p.VAR_POSITIONAL} for p in parameters)


@each_function
def test_shared_arguments_have_the_shared_defaults(name: str):
    shared = {
        "table_key": "table",
        "image_key": None,
        "tissue_mask_key": None,
        "seed": 0,
        "progress": True,
        "copy": False,
        "overwrite": False,
        "ax": None,
    }
    parameters = {p.name: p for p in parameters_of(resolve(name))}
    differing = {
        key: parameters[key].default
        for key, value in shared.items()
        if key in parameters and parameters[key].default != value
    }
    assert differing == {}


@each_function
def test_the_object_worked_on_comes_first_and_under_its_own_name(name: str):
    parameters = {p.name: str(p.annotation) for p in parameters_of(resolve(name))}
    assert not {"sdata", "adata", "data"} & set(list(parameters)[1:])
    assert not {"spatial_data", "anndata", "spatialdata"} & set(parameters)
    either = parameters.get("data", "AnnData | SpatialData")
    assert {"AnnData", "SpatialData"} <= set(re.findall(r"\w+", either)), "what is one of them only is named for it"


@each_function
def test_every_parameter_is_documented_and_no_other(name: str):
    function = resolve(name)
    parameters = {p.name for p in parameters_of(function)}
    assert documented_parameters(inspect.getdoc(function) or "") == parameters


@each_function
def test_every_public_function_has_an_example(name: str):
    docstring = inspect.getdoc(resolve(name)) or ""
    assert "Examples\n--------" in docstring
    assert ">>>" in docstring
    assert "# doctest: +SKIP" not in docstring or name in REAL_DATA


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL_DATA)
def test_examples_of_real_data_show_what_they_give(name: str):
    docstring = inspect.getdoc(resolve(name)).replace("# doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(docstring, {}, name, None, 0)
    assert doctest.DocTestRunner().run(example).failed == 0


@each_class
def test_public_classes_and_their_methods_are_documented(name: str):
    thing = resolve(name)
    methods = {
        key: value
        for key, value in vars(thing).items()
        if inspect.isfunction(inspect.unwrap(getattr(value, "__func__", value))) and not key.startswith("_")
    }
    assert inspect.getdoc(thing)
    assert [key for key, value in methods.items() if not inspect.getdoc(getattr(thing, key))] == []


@pytest.mark.parametrize("name", [name for name in public("function") if name.startswith("pl.")])
def test_plots_draw_on_the_axes_that_they_are_given(name: str):
    function = resolve(name)
    ax = {p.name: p for p in parameters_of(function)}.get("ax")
    assert ax is not None
    assert ax.kind is ax.KEYWORD_ONLY
    assert "Axes" in str(ax.annotation)
    one_panel = "Sequence" not in str(ax.annotation)
    assert ("Axes" if one_panel else "ndarray") in str(inspect.signature(function).return_annotation)
