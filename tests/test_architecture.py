import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recross_hf

PACKAGE = Path(recross_hf.__file__).parent
ROOT = PACKAGE.parents[1]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
PACKAGES = sorted(path.parent for path in MODULES if path.name == "__init__.py")


def name_of(path: Path) -> str:
    """The dotted name of a module below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_longer_than_300_lines(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 300


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_function_has_at_most_60_lines_of_code_or_a_reason_above_it(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            documented = body[0].lineno - node.body[0].lineno if body else 0
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            is_long = node.end_lineno - node.lineno + 1 - documented > 60
            assert not is_long or lines[first - 2].lstrip().startswith("#"), node.name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_private_names_stay_in_their_module(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert not [name for alias in node.names if (name := alias.name).startswith("_") and name[1] != "_"]


DOCUMENTED = re.compile(r"_(replace|asdict|make|foreach_\w+|info|compute|actions|option_string_actions)|_\w+_|__\w+")
"""Names of `NamedTuple`, `torch`, `evaluate.Metric` and, which are those of the standard library alone, `argparse` and `enum`."""


def own_names(tree: ast.AST) -> set[str]:
    """Functions that a module defines, and attributes that it sets of its own objects."""
    nodes = list(ast.walk(tree))
    stored = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    declared = {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AnnAssign)}
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return functions | declared | {node.attr for node in stored if not ast.unparse(node.value).endswith("config")}


def test_private_names_of_the_stack_are_held_on_to_in_compat_alone():
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for path in MODULES
        if path.stem not in ("_compat", "__main__")
    }
    own = set().union(*map(own_names, trees.values()))
    for path, tree in trees.items():
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr[0] == "_"}
        assert not [name for name in used - own if not DOCUMENTED.fullmatch(name)], path
        module = importlib.import_module(f"recross_hf.{name_of(path)}")
        for kind in filter(inspect.isclass, vars(module).values()):
            foreign = [base for base in kind.__mro__ if not base.__module__.startswith("recross_hf")]
            private = {name for name, value in vars(kind).items() if name[0] == "_" and inspect.isfunction(value)}
            hooks = [
                hook for base in foreign for hook in private & vars(base).keys() if not DOCUMENTED.fullmatch(hook)
            ]
            assert kind.__module__ != module.__name__ or not hooks, kind


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_says_what_lives_there_and_names_what_is_public(package):
    name = ".".join(package.relative_to(PACKAGE).parts)
    described = importlib.import_module(f"recross_hf.{name}").__doc__
    public = {public for public, module in recross_hf._MODULE_OF.items() if module.rpartition(".")[0] == name}
    assert public <= set(re.findall(r"`(\w+)`", described))


@pytest.mark.parametrize("path", [*MODULES, PACKAGE / "__init__.py"], ids=name_of)
def test_the_library_neither_prints_nor_parses_arguments_nor_runs_foreign_code(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    is_command = path.is_relative_to(PACKAGE / "cli")  # what a person types and reads
    assert not called & {"input", "torch.load", "eval", "exec", *(() if is_command else ("print",))}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    assert is_command or "argparse" not in imported
    assert not {name.split(".")[0] for name in imported} & {"pickle", "joblib", "dill", "cloudpickle"}
    trusted = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "trust_remote_code"
    ]
    assert all(isinstance(value, ast.Constant) and value.value is False for value in trusted)
    assert "allow_pickle=True" not in source


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, recross_hf; print(recross_hf.__version__, *sorted(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert output[0] == recross_hf.__version__
    heavy = {"torch", "transformers", "datasets", "numpy", "faiss", "accelerate", "evaluate", "peft", "pyarrow"}
    assert not heavy & set(output)
    assert {name for name in output if name.startswith("recross_hf.")} == {"recross_hf._version"}


def test_reading_a_manifest_and_the_hub_needs_no_torch():
    code = "import sys, recross_hf.hub.publishing, recross_hf.pipeline.manifest; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "accelerate", "faiss"} & set(output)


def test_every_public_name_is_where_it_says():
    for name in recross_hf.__all__:
        value = getattr(recross_hf, name)
        if name != "__version__":
            assert value.__module__ == f"recross_hf.{recross_hf._MODULE_OF[name]}"
            assert value.__doc__
    assert dir(recross_hf) == sorted(recross_hf.__all__)
    with pytest.raises(AttributeError, match="module 'recross_hf' has no attribute 'nothing'"):
        recross_hf.nothing  # noqa: B018


@pytest.mark.parametrize(("old", "new"), recross_hf._DEPRECATED.items())
def test_a_name_of_the_release_before_works_and_says_what_it_is_called_now(old, new):
    with pytest.warns(DeprecationWarning, match=rf"`recross_hf\.{old}` is now `recross_hf\.{new}`"):
        assert getattr(recross_hf, old) is getattr(recross_hf, new)
    assert old not in recross_hf.__all__


def test_names_for_type_checkers_are_the_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    checked = {alias.name: node.module for node in block.body for alias in node.names}
    assert checked == recross_hf._MODULE_OF


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_public_thing_says_what_it_is(path):
    module = importlib.import_module(f"recross_hf.{name_of(path)}")
    assert module.__doc__
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) == module.__name__ and not name.startswith("_") and callable(thing):
            assert thing.__doc__, f"{name_of(path)}.{name}"


def test_the_templates_of_cards_are_packaged_and_no_example_imports_private_names():
    assert {path.stem for path in (PACKAGE / "card_templates").iterdir()} >= {"adapted_model", "pipeline", "index"}
    assert (PACKAGE / "evaluation/report/page.html").is_file()
    assert (PACKAGE / "py.typed").is_file()
    for path in (ROOT / "examples").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recross_hf"):
                assert not [alias.name for alias in node.names if alias.name.startswith("_")], path.name
