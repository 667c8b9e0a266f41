"""Cells as files: names, claims, failures, settings."""

import multiprocessing
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.evaluation.cells import CellFiles, CellKey, CellMismatchError

KEY = CellKey("dense", "anli_r3", 2)


def test_a_cell_lies_where_its_name_says(tmp_path):
    files = CellFiles(tmp_path)
    assert files.path(KEY) == tmp_path / "cells" / "anli_r3" / "dense-2.json"
    assert files.path(CellKey("none", "anli_r3")).name == "none-shared.json"
    assert files.read(KEY) is None
    files.write(KEY, {"settings": {}, "predictions": ["é"]})
    assert files.is_finished(KEY)
    assert files.read(KEY)["predictions"] == ["é"]


@given(st.lists(st.text(min_size=1, max_size=90), min_size=2, max_size=4, unique=True))
def test_whatever_the_names_cells_have_files_of_their_own_below_the_folder(names):
    files = CellFiles("folder")
    paths = [files.path(CellKey(one, other, 0)) for one in names for other in names]
    assert len({str(path) for path in paths}) == len(paths)
    assert {path.parts[:2] for path in paths} == {("folder", "cells")}
    assert {len(path.parts) for path in paths} == {4}
    assert all(".." not in path.parts and len(path.name) < 120 for path in paths)


def test_a_held_cell_is_not_claimed_twice(tmp_path):
    files = CellFiles(tmp_path)
    with files.claimed(KEY) as mine, CellFiles(tmp_path).claimed(KEY) as also_mine:
        assert (mine, also_mine) == (True, False)
    files.write(KEY, {"settings": {}})
    with files.claimed(KEY) as mine:
        assert not mine


def _hold(folder, claimed):
    with CellFiles(folder).claimed(KEY):
        claimed.set()
        time.sleep(60)


def test_a_killed_process_gives_its_cell_back(tmp_path):
    context = multiprocessing.get_context("fork")
    claimed = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, claimed))
    process.start()
    assert claimed.wait(20)
    with CellFiles(tmp_path).claimed(KEY) as mine:
        assert not mine
    process.kill()
    process.join()
    with CellFiles(tmp_path).claimed(KEY) as mine:
        assert mine


def test_failures_are_kept_until_the_cell_is_finished(tmp_path):
    files, start = CellFiles(tmp_path), time.time() - 1
    assert files.failure(KEY) is None
    try:
        raise RuntimeError("first line\nlast line")
    except RuntimeError as error:
        files.write_failure(KEY, error)
    assert files.failure(KEY) == "last line"
    assert files.failed_since(KEY, start) and not files.failed_since(KEY, time.time() + 60)
    assert not files.is_finished(KEY)
    files.write(KEY, {"settings": {}})
    assert files.failure(KEY) is None


def test_a_cell_of_other_settings_is_refused_and_the_difference_named(tmp_path):
    files = CellFiles(tmp_path)
    files.check(KEY, {"anything": 1})
    files.write(KEY, {"settings": {"model": "a" * 64, "adaptation": {"seed": 1, "learning_rate": 1e-6}}})
    files.check(KEY, {"model": "a" * 64, "adaptation": {"seed": 1, "learning_rate": 1e-6}})
    message = (
        r"found cells/anli_r3/dense-2\.json with others: adaptation\.num_retrieved: None there, 8 here; adaptation\.seed: 1 there, "
        r"2 here; model: a{12}\.\.\. there, b{12}\.\.\. here\. Choose another `output_dir`, or delete the cell"
    )
    with pytest.raises(CellMismatchError, match=message):
        files.check(KEY, {"model": "b" * 64, "adaptation": {"seed": 2, "learning_rate": 1e-6, "num_retrieved": 8}})
