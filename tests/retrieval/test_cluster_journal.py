import json

import numpy as np
import pytest

from recross_hf.retrieval.cluster.journal import Journal
from recross_hf.retrieval.vector_shards import IndexMismatchError

BUILD = {"num_examples": 48, "encoder": {"weights": "a"}, "chunk_size": 8}
PROBES = np.ones((3, 4), dtype=np.float32)


@pytest.fixture(params=["", "file://"])
def storage(request, tmp_path):
    return f"{request.param}{tmp_path}/index"


def test_a_build_goes_on_with_the_chunks_that_are_written(storage, tmp_path):
    journal = Journal(storage, 6)
    assert journal.open(BUILD, PROBES) == {}
    journal.write(4, "four")
    journal.write(0, "zero")
    again = Journal(storage, 6)
    assert again.open(BUILD, PROBES + 1e-4) == {0: "zero", 4: "four"}
    again.close()
    assert not (tmp_path / "index" / "_recross_hf").exists()
    assert Journal(storage, 6).open(BUILD | {"chunk_size": 9}, PROBES) == {}


def test_another_build_is_refused_with_what_differs(storage):
    Journal(storage, 6).open(BUILD, PROBES)
    with pytest.raises(
        IndexMismatchError, match=r"other data or settings \(num_examples, encoder\)\. Finish that build"
    ):
        Journal(storage, 6).open(BUILD | {"num_examples": 49, "encoder": {"weights": "b"}}, PROBES)
    with pytest.raises(IndexMismatchError, match="an unfinished build with another encoder"):
        Journal(storage, 6).open(BUILD, -PROBES)


def test_of_two_builds_in_one_place_the_later_one_goes_on(storage):
    first, second = Journal(storage, 6), Journal(storage, 6)
    first.open(BUILD, PROBES)
    first.write(0, "zero")
    assert second.open(BUILD, PROBES) == {0: "zero"}
    for step in (lambda: first.write(1, "one"), first.check_owner, first.close):
        with pytest.raises(IndexMismatchError, match="found that another one has taken over"):
            step()
    second.write(1, "one")
    second.close()
    with pytest.raises(IndexMismatchError, match="found that another one has taken over"):
        first.write(2, "two")


def test_a_journal_half_deleted_or_half_written_is_no_build(storage, tmp_path):
    journal = Journal(storage, 6)
    journal.open(BUILD, PROBES)
    journal.write(3, "three")
    folder = tmp_path / "index" / "_recross_hf"
    (folder / "chunks" / "00000004.json.0a.partial").write_text('{"frag')  # what a kill left
    assert Journal(storage, 6).open(BUILD, PROBES) == {3: "three"}
    (folder / "build.json").unlink()
    assert Journal(storage, 6).open(BUILD | {"chunk_size": 9}, PROBES) == {}
    (folder / "build.json").write_text(json.dumps({"build": {}})[:-3])
    with pytest.raises(ValueError, match=r"Expected JSON in .*build\.json, found: .* Delete the file"):
        Journal(storage, 6).open(BUILD, PROBES)
