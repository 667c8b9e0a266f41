import json
import runpy
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recross_hf.mixture.template_files import load_templates

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "prompts_on_real_data.py"


def compared(data: Path, tmp_path: Path, *tasks: str) -> dict[str, dict]:
    output = tmp_path / "results.json"
    some = ["--tasks", *tasks] if tasks else []
    runpy.run_path(str(SCRIPT))["main"](["--data", str(data), "--output", str(output), *some])
    return json.loads(output.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_templates_come_out_as_the_authors_stored_them(promptsource, real_data, tmp_path):
    results = compared(real_data, tmp_path)
    for task, found in results.items():
        assert found["differences"] == {}, task
        assert found["equal"] == found["compared"]
    assert sum(found["compared"] for found in results.values()) > 4500
    assert sum(found["read_back"] for found in results.values()) > 1000


@pytest.mark.parametrize(
    ("column", "old", "new", "expected"),
    [
        ("input", "It rains.", "It rains.", None),
        ("input", "Are we", "Are you", "input"),
        ("input", " Are we", "  Are we", "white space"),
        ("outputs", "Maybe", "Yes", "answer"),
    ],
)
def test_a_rendering_that_differs_is_found(promptsource, tmp_path, column, old, new, expected):
    row = {"premise": "It rains.", "hypothesis": "It is wet", "label": 2}
    by_name = {template.name: template for template in load_templates("super_glue/cb", folder=promptsource)}
    stored = []
    for name in ("can we infer", "justified in saying"):
        example = by_name[name].example(row)
        stored.append(
            {"template": name, "example_id": "cb|#7", "input": example["input"], "outputs": example["references"]}
        )
    value = stored[1][column]
    stored[1][column] = [text.replace(old, new) for text in value] if column == "outputs" else value.replace(old, new)
    folder = tmp_path / "target" / "super_glue-cb"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(stored), folder / "test.parquet")
    found = compared(tmp_path, tmp_path, "super_glue-cb")["super_glue-cb"]
    assert found["read_back"] == 1
    assert found["differences"].get(f"justified in saying: {expected}", 0) == (0 if expected is None else 1)
    assert (found["equal"] == found["compared"]) == (expected is None)
