"""The laws of the layout (DESIGN, section 2), read off the source and off what a fresh interpreter imports."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "ctr").rglob("*.py"))

# What each part of `ctr` stands on. Everything may use the two files that know of nothing else.
GROUND = {"errors", "settings"}
BELOW = {
    "__init__": set(),
    "errors": set(),
    "settings": {"errors"},
    "config": GROUND,
    "dataset": GROUND,
    "network": GROUND,
    "evaluation": GROUND,
}
BELOW["training"] = {*BELOW, "config"}
BELOW["selection"] = {*BELOW, "training"}
BELOW["serving"] = {*BELOW, "selection"}
BELOW["registry"] = BELOW["unsent"] = GROUND
BELOW["report"] = BELOW["tracking"] = {*BELOW, "serving"}
BELOW["jobs"] = {*BELOW, "report", "tracking"}
BELOW["cli"] = {*BELOW, "jobs"}
BELOW["estimators"] = BELOW["cli"]  # scikit-learn's door stands beside the command line
BELOW["__init__"] = {"estimators"}  # when someone asks for one of them, and not before

WORDS = {"mask", "ticket", "arch", "alpha", "comb", "opt", "manager", "handler", "helper", "util", "common"}
WORDS |= {"base", "misc"}
HEAVY = {"torch", "polars", "mlflow", "matplotlib", "sklearn", "pandas"}
SCORING = ["ctr.dataset.encoding", "ctr.serving.bundle", "ctr.serving.scorer", "ctr.serving.session"]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, lazy: bool = True) -> set[str]:
    """Dotted names that a file imports; without `lazy`, those alone that are imported when the file is."""
    pending: list[ast.AST] = [tree(path)]
    found = set()
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if lazy or not (checking or inside):
            pending.extend(ast.iter_child_nodes(node))
    return found


def own(names: set[str]) -> set[str]:
    """The modules of `ctr` among imported names."""
    found = set()
    for name in names:
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        found |= {name} if name else set()
    return found


def part_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def names_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(name: str) -> list[str]:
    """Where a function or method of that name is called or taken."""
    found = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if (isinstance(node, ast.Attribute) and node.attr == name) or (
                isinstance(node, ast.Name) and node.id == name
            ):
                found.append(where(path))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    part = part_of(module)
    assert part in BELOW, f'"{part}" has no place in the house: see DESIGN, section 2'
    reached = {part_of(name) for name in own(imports(MODULES[module]))} - {part, "__init__"}
    assert reached <= BELOW[part], f"{module} imports {sorted(reached - BELOW[part])}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_in_the_library_imports_pipelines_or_tests(module):
    assert not names_of(MODULES[module]) & {"pipelines", "tests"}


def test_there_are_no_import_cycles():
    edges = {name: own(imports(path, lazy=False)) - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(edges[name]):
                # A package that lists what its own files offer is no cycle.
                if not name.startswith(other + "."):
                    visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_mlflow_is_imported_by_tracking_alone():
    users = {where(path) for path in FILES if "mlflow" in names_of(path)}
    assert users <= {"ctr/tracking.py", "ctr/serving/pyfunc.py"}
    assert "ctr/tracking.py" in users


def test_dataset_and_evaluation_know_nothing_of_torch_and_networks_nothing_of_polars():
    for path in FILES:
        if part_of(module_of(path)) in ("dataset", "evaluation"):
            assert "torch" not in names_of(path), where(path)
        if part_of(module_of(path)) in ("network", "evaluation"):
            assert "polars" not in names_of(path), where(path)


def loaded_after(code: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter that ran `code`."""
    program = f"import sys\n{code}\nsys.stderr.write(' '.join({{n.split('.')[0] for n in sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=60,
    )
    return set(result.stderr.split())


@pytest.mark.parametrize("module", SCORING)
def test_scoring_imports_no_torch(module):
    if module not in MODULES:
        pytest.skip(f"there is no {module} yet")
    loaded = loaded_after(f"import {module}")
    assert "ctr" in loaded
    assert not loaded & {"torch", "mlflow", "matplotlib", "sklearn"}


def test_help_is_instant():
    code = "from ctr.cli import app\ntry:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0"
    loaded = loaded_after(code)
    assert "typer" in loaded
    assert not loaded & (HEAVY | {"pydantic", "numpy", "pyarrow"})


def test_importing_ctr_loads_nothing_heavy():
    loaded = loaded_after("import ctr\nassert 'OptFSSelector' in dir(ctr)")
    assert not loaded & (HEAVY | {"pydantic", "numpy", "pyarrow"})


def test_every_estimator_is_found_in_ctr_itself():
    import ctr
    from ctr import estimators

    assert set(ctr.__all__) == {*estimators.__all__, "__version__"} == {*ctr._ESTIMATORS, "__version__"}
    assert all(getattr(ctr, name) is getattr(estimators, name) for name in estimators.__all__)
    with pytest.raises(AttributeError, match="OptimalSelector"):
        ctr.OptimalSelector  # noqa: B018


def test_test_rows_are_read_by_the_verdict_alone():
    assert set(calls("sealed_test")) == {"ctr/jobs/verdict.py"}
    assert len(calls("sealed_test")) == 1


def test_nothing_asks_for_the_rows_of_test_by_name():
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                constants = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                if node.func.attr in ("part", "_open") and "test" in constants:
                    assert where(path) == "ctr/dataset/store.py"


@pytest.mark.parametrize("path", FILES, ids=where)
def test_nothing_prints_evaluates_text_or_pickles(path):
    assert not names_of(path) & {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval", "exec", "compile", "breakpoint"), (
                f"line {node.lineno}"
            )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = getattr(node.func.value, "id", None)
            assert (owner, node.func.attr) not in {("torch", "load"), ("torch", "save")}, (
                f"line {node.lineno}"
            )
            assert not any(key.arg == "allow_pickle" for key in node.keywords), f"line {node.lineno}"


def forward(path: Path) -> list[ast.FunctionDef]:
    functions = (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef))
    return [function for function in functions if function.name == "forward"]


NETWORK = [path for path in FILES if part_of(module_of(path)) == "network"]


def test_no_backbone_applies_a_sigmoid():
    for path in NETWORK:
        if "backbones" in path.parts:
            assert "sigmoid" not in path.read_text(encoding="utf-8").replace("no sigmoid", "")


def test_forward_sees_tensors_only_and_assigns_to_nothing_of_its_own():
    assert sum(len(forward(path)) for path in NETWORK) > 10
    for path in NETWORK:
        for function in forward(path):
            kinds = {ast.unparse(argument.annotation) for argument in function.args.args[1:]}
            allowed = {"Tensor", "Tensor | None", "Inputs", "Tensor | Given", "Tensor | Given | None"}
            assert kinds <= allowed, f"{where(path)}: {kinds}"  # Given, like Inputs, is a tuple of tensors
            for node in ast.walk(function):
                targets = getattr(node, "targets", [getattr(node, "target", None)])
                for target in targets:
                    assert not (isinstance(target, ast.Attribute)), f"{where(path)}, line {node.lineno}"


def test_files_are_called_by_words_of_the_domain():
    for path in [*FILES, *(ROOT / "pipelines").rglob("*.py")]:
        words = {word.removesuffix("s") for word in path.stem.split("_")}
        assert not words & WORDS, where(path)
        assert "feat_map" not in path.stem


def test_names_in_code_are_words_of_the_domain():
    for path in FILES:
        names: dict[str, int] = {}
        for node in ast.walk(tree(path)):
            for key in ("id", "attr", "arg", "name"):
                name = getattr(node, key, None)
                defined = not isinstance(node, ast.Attribute | ast.Name) or isinstance(node.ctx, ast.Store)
                if isinstance(name, str) and defined and not isinstance(node, ast.alias | ast.keyword):
                    names[name] = getattr(node, "lineno", 0)
        for name, line in names.items():
            known = r"base_rate|^Opt(FS|Inter)"  # a term of statistics, and how two methods are called
            parts = re.findall(r"[A-Za-z][a-z]*", re.sub(known, "", name))
            words = {part.lower().removesuffix("s") for part in parts}
            assert not words & WORDS, f'{where(path)}, line {line}: "{name}"'


def test_the_folder_mlflow_holds_no_python():
    assert not list((ROOT / "mlflow").rglob("*.py"))


def test_the_wheel_is_ctr_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["ctr"]}
    assert project["project"]["scripts"] == {"ctr": "ctr.cli:main"}


def test_every_file_says_what_it_is():
    for path in FILES:
        assert ast.get_docstring(tree(path)), where(path)
