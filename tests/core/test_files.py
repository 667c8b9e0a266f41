import copy
import hashlib
import os
import pickle
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import torch
from datasets import Dataset

from recross_hf.core import files
from recross_hf.core.files import (
    is_intact,
    matching,
    read_json,
    read_parquet,
    sha256_of,
    write_atomically,
    write_json,
    write_parquet,
)
from recross_hf.core.hashing import weights_hash


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "x.txt"
    write_atomically(path, lambda partial: partial.write_text("one"))
    seen = []
    write_atomically(
        path, lambda partial: (partial.write_text("two"), seen.append((partial.parent, path.read_text())))
    )
    assert seen == [(path.parent, "one")]
    assert path.read_text() == "two"
    assert [child.name for child in path.parent.iterdir()] == ["x.txt"]


def test_who_has_the_old_file_open_keeps_reading_it(tmp_path):
    path = tmp_path / "x.txt"  # as an index does that is memory-mapped
    path.write_text("one")
    with path.open() as file:
        write_atomically(path, lambda partial: partial.write_text("two"))
        assert file.read() == "one"
    assert path.read_text() == "two"


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def write(partial):
        partial.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["x.txt"]


def test_json_is_read_as_written_and_broken_json_names_the_file(tmp_path):
    content = {"a": [1, None, "ü"], "b": {"c": 0.1}}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    (tmp_path / "x.json").write_text('{"a": [')
    with pytest.raises(ValueError, match=r"Expected JSON in .*x\.json, found: .*again"):
        read_json(tmp_path / "x.json")


def test_parquet_keeps_rows_and_types_also_of_a_selection_of_many(examples, tmp_path):
    many = Dataset.from_dict({"n": range(25_000), "text": [str(n) for n in range(25_000)]})
    for rows in (examples, examples.shuffle(seed=0).select(range(7)), many.select(range(24_999, -1, -2))):
        write_parquet(rows, tmp_path / "x.parquet")
        loaded = Dataset.from_parquet(str(tmp_path / "x.parquet"))
        assert loaded.features == rows.features
        assert loaded.to_list() == rows.to_list()


def test_the_checksum_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_weights_are_known_by_their_names_and_every_bit(bart):
    model = copy.deepcopy(bart)
    assert weights_hash(model) == weights_hash(bart)
    assert weights_hash(model.train().requires_grad_(False)) == weights_hash(bart)
    with torch.no_grad():
        weight = model.model.decoder.layers[1].fc2.bias
        weight[-1] = torch.nextafter(weight[-1], torch.tensor(9.0))
    assert weights_hash(model) != weights_hash(bart)
    assert weights_hash(copy.deepcopy(bart).bfloat16()) != weights_hash(bart)


def test_any_module_has_a_hash():
    module = torch.nn.Module()
    module.register_buffer("count", torch.tensor(3))
    module.register_buffer("none", torch.zeros(0, 4))
    module.weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3).t().bfloat16())
    hashes = [weights_hash(module)]
    module.count += 1
    hashes.append(weights_hash(module))
    module.weight = torch.nn.Parameter(module.weight.detach().contiguous())
    assert weights_hash(module) == hashes[1] != hashes[0]


def test_a_large_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(files.constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(files, "REMEMBERED_SIZE", 8)
    reads = []
    monkeypatch.setattr(files, "sha256_of", lambda path: reads.append(path) or sha256_of(path))
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"123456789")
    small.write_bytes(b"1234")
    digest = sha256_of(large)
    for _ in range(3):
        assert is_intact(large, digest)
        assert is_intact(small, sha256_of(small))
    assert reads.count(large) == 1 and reads.count(small) == 3
    assert not is_intact(large, "0" * 64)
    assert is_intact(large, digest)
    (tmp_path / "link").symlink_to(large)
    assert is_intact(tmp_path / "link", digest)  # a link into a cache is the file
    assert reads.count(large) == 2
    large.write_bytes(b"12345678X")
    assert not is_intact(large, digest)
    (tmp_path / "home" / "recross_hf" / "verified.json").write_text("no json")
    assert not is_intact(large, digest)
    assert is_intact(large, sha256_of(large))


def test_a_home_that_cannot_be_written_costs_a_second_read(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setattr(files.constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(files, "REMEMBERED_SIZE", 1)
    (tmp_path / "large").write_bytes(b"1")
    assert is_intact(tmp_path / "large", sha256_of(tmp_path / "large"))


# ---- reading parquet -------------------------------------------------------------------------------------------------


def test_a_file_that_was_replaced_under_its_name_and_time_gives_its_own_rows(tmp_path):
    """As tar, rsync and reproducible builds replace them."""
    path = tmp_path / "x.parquet"
    for text in ("old", "new"):
        write_parquet(Dataset.from_dict({"text": [text] * 3}), path)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert read_parquet(path)["text"][:] == [text] * 3
    fingerprint = read_parquet(path)._fingerprint
    path.rename(tmp_path / "y.parquet")
    assert read_parquet(tmp_path / "y.parquet")._fingerprint == fingerprint


def test_rows_stay_on_disk_and_are_those_that_were_written(examples, tmp_path):
    many = Dataset.from_dict({"n": range(25_000), "text": [f"{n} " * 50 for n in range(25_000)]})
    for rows in (examples, many, many.select([])):
        write_parquet(rows, tmp_path / "x.parquet")
        before = pa.total_allocated_bytes()
        found = read_parquet(str(tmp_path / "x.parquet"))
        assert pa.total_allocated_bytes() - before < 0.05 * rows.data.nbytes + 1000
        assert found.features == rows.features
        assert found.to_list() == rows.to_list()
        assert pickle.loads(pickle.dumps(found)).to_list() == rows.to_list()


def test_a_cache_that_cannot_be_written_stops_nobody(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    write_parquet(Dataset.from_dict({"text": ["a", "b"]}), tmp_path / "x.parquet")
    for _ in range(2):
        assert read_parquet(tmp_path / "x.parquet")["text"][:] == ["a", "b"]


@pytest.mark.parametrize("cut", [0, 3, 60, -9])
def test_what_is_no_parquet_is_named_and_leaves_nothing(cut, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "x.parquet"
    write_parquet(Dataset.from_dict({"text": ["a", "b"]}), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"Expected parquet in .*x\.parquet, found a malformed file: .*again"):
        read_parquet(path)
    assert not list((tmp_path / "cache" / "recross_hf").iterdir())
    with pytest.raises(FileNotFoundError):
        read_parquet(tmp_path / "none.parquet")


def test_a_name_with_brackets_stands_for_itself_and_else_for_what_it_matches(tmp_path):
    for name in ("a[1]", "a1", "a2"):
        (tmp_path / name).mkdir()
    assert matching(tmp_path / "a[1]") == [tmp_path / "a[1]"]
    (tmp_path / "a[1]").rmdir()
    assert matching(tmp_path / "a[1]") == [tmp_path / "a1"]
    assert matching(str(tmp_path / "a*")) == [tmp_path / "a1", tmp_path / "a2"]
    assert matching(Path(tmp_path) / "b*") == []
