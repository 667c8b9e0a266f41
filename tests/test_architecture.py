import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import recross_hf

PACKAGE = Path(recross_hf.__file__).parent
ROOT = PACKAGE.parents[1]
RANKS = [
    {
        "aggregation",
        "architectures",
        "arguments",
        "batching",
        "card",
        "contamination",
        "data",
        "digests",
        "faiss_files",
        "files",
        "mixing",
        "objectives",
        "pairs",
        "processes",
        "prompt_sandbox",
        "ranking_metrics",
        "recipes",
        "report",
        "paper_results",
        "repository",
        "sharding",
        "significance",
        "soft_em",
        "starter",
        "tables",
        "weights",
    },
    {
        "adapted_card",
        "copying",
        "data_card",
        "encoder",
        "generation",
        "hub",
        "likelihood",
        "manifest",
        "part_cards",
        "plan",
        "prompts",
        "pushing",
        "results",
        "scoring",
        "selection",
        "tokenized",
        "vector_shards",
    },
    {
        "benchmark_scores",
        "cell_files",
        "gate",
        "group_training",
        "index",
        "publication",
        "reranker",
        "sources",
        "target_tasks",
        "trainer",
        "upstream",
    },
    {"comparison", "cross_encoder", "judges", "overlaps", "rendering", "retriever"},
    {"adapter", "benchmark_tables", "bm25", "mixture", "parts", "reranker_trainer", "supervision"},
    {"figures", "findings", "pipeline", "probing"},
    {"benchmark_report", "methods"},
    {"evaluation"},
    {"benchmark_plan"},
]
"""A module imports from lower ranks alone. `__init__` holds the version and stands below all."""
RANK_OF = {name: rank for rank, names in enumerate(RANKS) for name in names}
MODULES = sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")


def imported_by(path: Path) -> set[str]:
    """Modules of this package that a module imports when it runs; those for annotations alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("recross_hf")):
            module = (node.module or "").removeprefix("recross_hf").strip(".")
            names |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("recross_hf.")}
    return names - {"__version__"}


def test_every_module_has_a_rank():
    assert {path.stem for path in MODULES} == set(RANK_OF)
    assert sum(map(len, RANKS)) == len(RANK_OF)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_import_downwards_only(path):
    upwards = {name for name in imported_by(path) if RANK_OF[name] >= RANK_OF[path.stem]}
    assert not upwards, (
        f"{path.name} (rank {RANK_OF[path.stem]}) imports {upwards}: move what it needs to a lower rank"
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_rank_is_no_higher_than_its_imports_ask_for(path):
    needed = max((RANK_OF[name] + 1 for name in imported_by(path)), default=0)
    assert RANK_OF[path.stem] == needed


@pytest.mark.parametrize("path", [*MODULES, PACKAGE / "__init__.py"], ids=lambda path: path.stem)
def test_the_library_neither_prints_nor_parses_arguments_nor_runs_foreign_code(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"print", "input", "torch.load", "eval", "exec"}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    assert not {name.split(".")[0] for name in imported} & {"argparse", "pickle", "joblib", "dill", "cloudpickle"}
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
    assert not {name for name in output if name.startswith("recross_hf.")}


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


def test_names_for_type_checkers_are_the_public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    checked = {alias.name: node.module for node in block.body for alias in node.names}
    assert checked == recross_hf._MODULE_OF


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_public_thing_says_what_it_is(path):
    module = importlib.import_module(f"recross_hf.{path.stem}")
    assert module.__doc__
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) == module.__name__ and not name.startswith("_") and callable(thing):
            assert thing.__doc__, f"{path.stem}.{name}"


def test_the_templates_of_cards_are_packaged_and_no_example_imports_private_names():
    assert {path.stem for path in (PACKAGE / "card_templates").iterdir()} >= {"adapted_model", "pipeline", "index"}
    assert (PACKAGE / "benchmark_report.html").is_file()
    assert (PACKAGE / "py.typed").is_file()
    for path in (ROOT / "examples").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recross_hf"):
                assert not [alias.name for alias in node.names if alias.name.startswith("_")], path.name
