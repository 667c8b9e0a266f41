"""The tutorials run, and hold what they print: their words are compared, and not numbers, which another machine may change."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra `docs` is not installed")
nbclient = pytest.importorskip("nbclient", reason="the extra `docs` is not installed")

TUTORIALS = sorted((Path(__file__).parents[2] / "docs/tutorials").glob("*.ipynb"))
LARGEST = 300_000


def printed(notebook) -> list[str]:
    """What each cell printed, without its numbers."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    return [re.sub(r"[-+]?\d[\d.,]*|\s+", " ", text) for text in texts]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_prints_what_it_shows(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    shown = nbformat.read(path, as_version=4)
    assert path.stat().st_size < LARGEST
    assert all(cell.execution_count for cell in shown.cells if cell.cell_type == "code"), "It was saved without its outputs."
    client = nbclient.NotebookClient(
        nbformat.read(path, as_version=4), timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    assert printed(client.execute())[0] == printed(shown)[0]
    for number, (found, expected) in enumerate(zip(printed(client.nb), printed(shown), strict=True)):
        assert bool(found.strip()) == bool(expected.strip()), f"cell {number} printed {found!r}, shows {expected!r}"


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_shows_no_path_of_the_machine_that_ran_it(path):
    found = re.findall(r"/(?:tmp|home|work|root|Users|usr)/[\w./-]*", path.read_text(encoding="utf-8"))
    assert not found
