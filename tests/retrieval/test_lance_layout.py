"""The layout of a Lance data set: what is written when, what is seen of it, and what two builds at once do."""

import os

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")

from recross_hf.data.schema import ExampleError
from recross_hf.retrieval.lance.layout import (
    TAG,
    BuildConflictError,
    commit,
    current_version,
    finish,
    stored_schema,
    to_table,
    write_fragment,
)
from recross_hf.retrieval.lance.location import Location, load_lance

EXAMPLES = pa.table(
    {
        "id": ["a", "b"],
        "task": pa.array(["t", "t"], pa.large_string()),
        "input": ["x", "y"],
        "references": [["r"], ["s", "t"]],
        "score": [1.0, 2.0],
    }
)


@pytest.fixture
def location(tmp_path):
    return Location.of(tmp_path / "index.lance")


def table(value=0.0, dtype=np.float32):
    return to_table(EXAMPLES, np.full((2, 8), value, np.float32), stored_schema(EXAMPLES.schema, 8, dtype))


def committed(location, *values, read_version=None):
    fragments = [write_fragment(location, table(value)) for value in values]
    read_version = current_version(location) if read_version is None else read_version
    return commit(location, fragments, table().schema, read_version=read_version)


def opened(location, version):
    return load_lance().dataset(location.uri, version=version)


def test_fragments_are_seen_by_nobody_before_they_are_committed_in_their_order(location):
    fragments = [write_fragment(location, table(value)) for value in (1, 2, 3)]
    assert current_version(location) == 0
    version = commit(location, fragments[::-1], table().schema, read_version=0)
    vectors = np.array(opened(location, version).to_table()["vector"].to_pylist())
    assert vectors[:, 0].tolist() == [3, 3, 2, 2, 1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_columns_of_the_schema_are_stored_in_one_type_each(location, dtype):
    stored = table(dtype=dtype).schema
    assert stored.names == ["id", "task", "input", "references", "vector"]
    assert stored.field("task").type == pa.string()
    assert stored.field("vector").type == pa.list_(pa.from_numpy_dtype(dtype), 8)


def test_a_version_is_tagged_when_its_configuration_is_stored_with_it(location):
    version = committed(location, 1.0)
    assert TAG not in opened(location, version).tags.list()
    tagged = finish(location, version, {"metric": "l2"})
    assert opened(location, TAG).version == tagged
    assert opened(location, TAG).schema.metadata == {TAG.encode(): b'{"metric": "l2"}'}


@pytest.mark.parametrize("is_first", [True, False])
def test_the_second_of_two_builds_is_refused(location, is_first):
    if not is_first:
        finish(location, committed(location, 0.0), {})
    before = current_version(location)
    mine = [write_fragment(location, table(1.0))]
    theirs = committed(location, 2.0)
    with pytest.raises(
        BuildConflictError, match=rf"Expected version {before} .* found version {theirs}: another build"
    ):
        commit(location, mine, table().schema, read_version=before)
    assert current_version(location) == theirs


def test_lance_itself_refuses_what_was_committed_between_the_look_and_the_commit(location, monkeypatch):
    committed(location, 0.0)
    mine, theirs = [write_fragment(location, table(1.0))], iter([1])
    real = current_version

    def stale(place):
        return next(theirs, None) or real(place)

    committed(location, 2.0)
    monkeypatch.setattr("recross_hf.retrieval.lance.layout.current_version", stale)
    with pytest.raises(BuildConflictError, match="another build wrote there meanwhile"):
        commit(location, mine, table().schema, read_version=1)
    assert opened(location, 2).count_rows() == 2


def test_a_build_that_was_overtaken_is_not_tagged(location):
    version = committed(location, 1.0)
    committed(location, 2.0)
    with pytest.raises(BuildConflictError, match="another build wrote there meanwhile"):
        finish(location, version, {})
    assert TAG not in opened(location, version).tags.list()


def test_a_full_disk_is_an_error_that_says_what_to_do(location):
    resource = pytest.importorskip("resource")
    finished = finish(location, committed(location, 0.0), {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = pa.concat_tables([EXAMPLES] * 5_000)
    written = to_table(large, np.random.default_rng(0).random((10_000, 8), np.float32), table().schema)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"Expected to write 10,000 examples to .* Make sure that there is room"):
            write_fragment(location, written)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert current_version(location) == finished


def test_vectors_that_are_not_finite_or_of_another_dimension_are_refused():
    schema = stored_schema(EXAMPLES.schema, 8, np.float16)
    vectors = np.zeros((2, 8), np.float32)
    with pytest.raises(ValueError, match=r"Expected vectors \[2, 8\], found \[2, 4\]"):
        to_table(EXAMPLES, vectors[:, :4], schema)
    vectors[1, 3] = 1e6
    with pytest.raises(ValueError, match=r"float16 can hold, found 1e\+06 for the example 'b'"):
        to_table(EXAMPLES, vectors, schema)
    vectors[1, 3] = np.nan
    with pytest.raises(ValueError, match="found NaN or infinity for the example 'b'"):
        to_table(EXAMPLES, vectors, schema)


def test_examples_without_a_column_or_with_another_type_are_refused():
    with pytest.raises(ExampleError, match="Expected the columns id, task, input, references, found id"):
        stored_schema(EXAMPLES.select(["id"]).schema, 8)
    numbers = EXAMPLES.set_column(3, "references", pa.array([1, 2]))
    with pytest.raises(ExampleError, match=r"references \(list.*found .*references \(int64\)"):
        to_table(numbers, np.zeros((2, 8), np.float32), table().schema)
    with pytest.raises(ValueError, match="Expected vectors in float32 or float16, found int8"):
        stored_schema(EXAMPLES.schema, 8, np.int8)


@pytest.mark.parametrize(
    ("storage", "uri"),
    [
        ("lance:///data/index.lance", "/data/index.lance"),
        ("s3://bucket/index.lance/", "s3://bucket/index.lance"),
        ("gs://bucket/index", "gs://bucket/index"),
        ("hf://datasets/org/name/index.lance", "hf://datasets/org/name/index.lance"),
        ("hf://datasets/org/name@main/index.lance", "hf://datasets/org/name@main/index.lance"),
    ],
)
def test_an_address_is_what_lance_opens(storage, uri):
    if os.sep != "/" and uri.startswith("/"):
        pytest.skip("a path of another system")
    assert Location.of(storage).uri == uri


def test_a_folder_becomes_an_absolute_path_and_a_token_an_option_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Location.of("index.lance", token="secret") == Location(str(tmp_path / "index.lance"))
    assert Location.of("lance://index.lance").folder == tmp_path / "index.lance"
    assert Location.of("hf://datasets/a/b", token="secret").options == {"hf_token": "secret"}
    assert Location.of("s3://bucket/index").folder is None


@pytest.mark.parametrize(
    "storage", ["", "  ", "lance://", "s3://", "ftp://host/index", "hf://org/name", "hf://models/a/b"]
)
def test_a_bad_address_is_refused(storage):
    with pytest.raises(ValueError, match=r"Expected a folder, lance://FOLDER, s3://BUCKET/PATH, .* found"):
        Location.of(storage)


def test_a_file_is_no_folder_of_a_data_set(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("file", "file/index.lance"):
        with pytest.raises(NotADirectoryError, match=r"Expected a folder of a Lance data set at .* found the file"):
            Location.of(tmp_path / name)


def test_a_change_of_somebody_else_between_the_configuration_and_the_tag_is_noticed(location, monkeypatch):
    version, lance = committed(location, 1.0), load_lance()
    update = lance.LanceDataset.update_schema_metadata

    def after_another(dataset, values):
        lance.dataset(location.uri).update_config({"somebody": "else"})
        return update(dataset, values)

    monkeypatch.setattr(lance.LanceDataset, "update_schema_metadata", after_another)
    with pytest.raises(BuildConflictError, match=rf"Expected version {version + 1} .* found version {version + 2}"):
        finish(location, version, {})
    assert TAG not in opened(location, version).tags.list()
