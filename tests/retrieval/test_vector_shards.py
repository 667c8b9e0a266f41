import contextlib
import threading

import numpy as np
import pytest
import tiny
from datasets import concatenate_datasets

from recross_hf.retrieval import vector_shards
from recross_hf.retrieval.vector_shards import IndexMismatchError, VectorShards

BUILD = {"num_examples": 48}


def shards_of(folder, dtype=np.float32, shard_size=10) -> VectorShards:
    return VectorShards(folder / "shards", 48, shard_size, np.dtype(dtype))


@pytest.fixture
def filled(examples, tmp_path):
    shards = shards_of(tmp_path)
    shards.open(BUILD, tiny.HashEncoder())
    shards.encode(examples, tiny.HashEncoder(), shards.missing(), show_progress=False)
    return shards


def test_shards_hold_the_vectors_in_order(filled, examples):
    expected = tiny.HashEncoder().encode(examples["input"][:])
    assert [len(shard) for shard in filled] == [10, 10, 10, 10, 8]
    assert np.array_equal(np.concatenate(list(filled)), expected)


def test_half_precision_takes_half_the_disk_and_is_good_to_three_digits(examples, filled, tmp_path):
    half = VectorShards(tmp_path / "half", 48, 10, np.dtype(np.float16))
    half.open(BUILD, tiny.HashEncoder())
    half.encode(examples, tiny.HashEncoder(), half.missing(), show_progress=False)
    sizes = [shards.path(0).stat().st_size for shards in (filled, half)]
    assert sizes[0] - sizes[1] == 10 * 16 * 2
    for exact, rounded in zip(filled, half, strict=True):
        assert rounded.dtype == np.float32
        np.testing.assert_allclose(rounded, exact, rtol=1e-3, atol=1e-6)
        assert not np.array_equal(rounded, exact)


def test_a_vector_that_half_precision_cannot_hold_is_refused(examples, tmp_path):
    class Large(tiny.HashEncoder):
        def encode(self, texts):
            return super().encode(texts) + np.array([[7e4 * ("No. 3)" in text)] for text in texts], dtype=np.float32)

    shards = shards_of(tmp_path, np.float16)
    with pytest.raises(
        ValueError, match=r"float16 can hold, found 7e\+04 for the example 'sentiment/3'. Keep them in"
    ):
        shards.encode(examples, Large(), [0], show_progress=False)


@pytest.mark.parametrize("size", [1, 20, 47, 48, 1000])
def test_a_sample_is_drawn_from_all_and_nothing_twice(size, filled, examples):
    everything = [row.tobytes() for row in tiny.HashEncoder().encode(examples["input"][:])]
    drawn = [everything.index(row.tobytes()) for row in filled.sample(size, seed=3)]
    assert drawn == sorted(set(drawn))
    assert len(drawn) == min(size, 48)
    if size == 20:
        assert {row // 10 for row in drawn} == set(range(5))
        assert not np.array_equal(filled.sample(size, seed=3), filled.sample(size, seed=4))


def test_parts_that_begin_at_the_same_time_share_one_folder(tmp_path):
    """All open it at once, and what one has written by then no other deletes."""
    barrier, failures = threading.Barrier(8), []

    def begin(number):
        barrier.wait()
        try:
            shards = shards_of(tmp_path)
            shards.open(BUILD, tiny.HashEncoder())
            shards.path(number).write_bytes(b"x")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert names == [*(f"{number:06d}.npy" for number in range(8)), "build.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shard_size": 12}, r"\(shard_size\)"),
        ({"dtype": np.float16}, r"other data or settings \(vector_dtype\)\. Finish that build, choose another folder"),
    ],
)
def test_shards_of_other_settings_are_refused(change, match, filled, tmp_path):
    with pytest.raises(IndexMismatchError, match=match):
        shards_of(tmp_path, **change).open(BUILD, tiny.HashEncoder())


def test_shards_that_are_missing_are_named_with_the_remedy(filled):
    filled.check_complete()
    for number in (1, 3):
        filled.path(number).unlink()
    assert filled.missing() == [1, 3]
    with pytest.raises(
        FileNotFoundError, match=r"5 shards .*found 3 \(number 1 is missing\).*all nodes share and run"
    ):
        filled.check_complete()


class Moves(list):
    """A bar that keeps how far each of its moves took it."""

    n = 0

    def __call__(self, **settings):
        assert settings["is_shown"]
        return contextlib.nullcontext(self)

    def update(self, texts):
        self.append(texts)
        self.n += texts


def test_the_bar_moves_within_a_shard(encoder, tmp_path, monkeypatch):
    """A shard of thousands takes minutes; what is written is the same for an encoder that reports and for one that cannot."""
    many = tiny.examples(per_task=50)
    monkeypatch.setattr(vector_shards, "progress_bar", moves := Moves())
    shards = VectorShards(tmp_path / "plain", 200, 200, np.dtype(np.float32))
    shards.encode(many, tiny.HashEncoder(), [0], show_progress=True)
    assert [move for move in moves if move] == [64, 64, 64, 8]
    assert np.array_equal(next(iter(shards)), tiny.HashEncoder().encode(many["input"][:]))
    # An encoder of the library gets all texts, sorts them itself, and tells after each batch; one that comes twice is encoded once.
    twice = concatenate_datasets([many.select(range(100))] * 2)
    encoder.token_budget = 64
    monkeypatch.setattr(vector_shards, "progress_bar", moves := Moves())
    shards = VectorShards(tmp_path / "reporting", 200, 200, np.dtype(np.float32))
    shards.encode(twice, encoder, [0], show_progress=True)
    assert len(moves) > 10
    assert (sum(moves), max(moves)) == (200, 100)
    assert np.array_equal(next(iter(shards)), encoder.encode(twice["input"][:]))
    encoder.encode(["a text that no bar is told of"])
    assert sum(moves) == 200
