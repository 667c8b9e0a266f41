import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from recross_hf import load_examples
from recross_hf.data.schema import ExampleError
from recross_hf.retrieval.cluster.sources import Chunk, ParquetSource, Piece

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Which colour has the sky?"},
    {"role": "assistant", "content": "blue"},
]


def written(folder, examples=None, sizes=(20, 1, 27), row_group_size=6):
    """Examples in files of these many rows."""
    table = (examples or tiny.examples()).with_format("arrow")[:]
    start = 0
    for number, size in enumerate(sizes):
        path = folder / f"{number:02d}.parquet"
        pq.write_table(table.slice(start, size), path, row_group_size=row_group_size)
        start += size
    return folder


def all_rows(source, chunk_size):
    return pa.concat_tables([source.read(chunk) for chunk in source.chunks(chunk_size)])


@pytest.mark.parametrize("chunk_size", [1, 7, 20, 48, 100])
def test_chunks_of_any_size_hold_what_load_examples_reads(chunk_size, tmp_path):
    source = ParquetSource.of(str(written(tmp_path)))
    chunks = source.chunks(chunk_size)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert {len(chunk) for chunk in chunks[:-1]} <= {chunk_size}
    assert sum(map(len, chunks)) == source.num_rows == 48
    rows = all_rows(source, chunk_size)
    assert rows.to_pylist() == load_examples(tmp_path).to_list()
    assert rows.schema == source.schema
    assert source.has_ids


def test_ids_that_are_made_count_the_rows_of_all_files(tmp_path):
    plain = tiny.examples().remove_columns(["id", "template", "choices"]).rename_columns({"input": "question"})
    columns = {"input": "question"}
    source = ParquetSource.of(str(written(tmp_path, plain)), columns)
    assert not source.has_ids
    expected = load_examples(tmp_path, columns=columns)
    assert all_rows(source, 9).to_pylist() == expected.to_list()
    assert expected["id"][30] == "sum/30"


def test_turns_have_their_column_in_every_chunk_whether_a_chunk_has_some_or_not(tmp_path):
    rows = [{"messages": CONVERSATION[1:], "task": "colour"}] * 5 + [{"messages": CONVERSATION, "task": "colour"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = ParquetSource.of(str(tmp_path))
    first, second = (source.read(chunk) for chunk in source.chunks(5))
    assert first.schema == second.schema == source.schema
    assert first["messages"].null_count == 5
    assert pa.concat_tables([first, second]).to_pylist() == load_examples(tmp_path).to_list()


def test_files_are_named_by_patterns_and_addresses_and_each_is_read_once(tmp_path):
    (tmp_path / "up stream").mkdir()
    folder = written(tmp_path / "up stream")
    (folder / "notes.txt").write_text("no example")
    files = [f"{folder}/{number:02d}.parquet" for number in range(3)]
    assert [address for address, _, _ in ParquetSource.of([f"{folder}/*.parquet", files[1]]).files] == files
    place = f"file://{folder}".replace(" ", "%20")
    for pattern in (place, f"{place}/*.parquet", f"file://{tmp_path}/**/0*.parquet"):
        source = ParquetSource.of(pattern)
        assert [address for address, _, _ in source.files] == [f"{place}/{Path(path).name}" for path in files]
        assert all_rows(source, 20).to_pylist() == load_examples(files).to_list()
    with pytest.raises(FileNotFoundError, match=r"No parquet file at file://.*/x\*"):
        ParquetSource.of(f"{place}/x*")
    with pytest.raises(ValueError, match="begins with hf://, s3:// or gs://, found 'ftp://a/b'"):
        ParquetSource.of("ftp://a/b")


def test_a_chunk_reads_its_own_row_groups_alone(tmp_path):
    path = written(tmp_path, sizes=(48,), row_group_size=24) / "00.parquet"
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 400] = bytes(400)
    path.write_bytes(content)
    source = ParquetSource.of(str(path))
    first, second = source.chunks(24)
    assert len(source.read(first)) == 24
    with pytest.raises(OSError, match=r"the rows 24 to 48 of .*00\.parquet, found: "):
        source.read(second)


def test_the_size_of_a_chunk_depends_on_the_number_of_rows_alone():
    def size_of(rows):
        return ParquetSource((("a.parquet", rows, 1),), {}, (), has_ids=True).default_chunk_size()

    assert [size_of(rows) for rows in (48, 4_194_304, 4_194_305, 10**8)] == [4096, 4096, 8192, 65_536]
    assert ParquetSource((("a", 5, 1), ("b", 5, 1)), {}, (), has_ids=True).chunks(8)[1] == Chunk(
        1, 8, (Piece("b", 3, 5),)
    )


def test_an_example_that_is_none_is_told_with_its_file_and_row(tmp_path):
    rows = tiny.examples().to_list()
    rows[44]["input"] = "  "
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = ParquetSource.of(str(tmp_path))
    *_, last = source.chunks(40)
    with pytest.raises(
        ExampleError, match=r"a\.parquet, where row 0 is row 40 of the file: 1 of 8 rows have an empty input \(row 4\)"
    ):
        source.read(last)


def test_what_cannot_be_read_in_parts_is_refused_before_any_worker_starts(tmp_path):
    folder = written(tmp_path)
    (folder / "more.jsonl").write_text('{"input": "a", "references": ["b"]}\n')
    with pytest.raises(ExampleError, match=r"Expected parquet files, .* found .*more\.jsonl"):
        ParquetSource.of(str(folder))
    (folder / "more.jsonl").unlink()
    with pytest.raises(ExampleError, match=r"Expected the column 'question' \(for 'input'\)"):
        ParquetSource.of(str(folder), {"input": "question"})
    pq.write_table(pa.table({"input": ["a"], "references": np.array([1])}), folder / "numbers.parquet")
    with pytest.raises(ExampleError, match="the same columns in every file"):
        ParquetSource.of(str(folder))
    with pytest.raises(ExampleError, match="Expected a string or a list of strings in 'references', found int64"):
        ParquetSource.of(str(folder / "numbers.parquet"))
    (folder / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ExampleError, match=r"Expected parquet in .*broken\.parquet, found a malformed file"):
        ParquetSource.of(str(folder / "broken.parquet"))
    pq.write_table(pa.table({"input": pa.array([], pa.string())}), folder / "empty.parquet")
    with pytest.raises(ExampleError, match="at least one example, found none"):
        ParquetSource.of(str(folder / "empty.parquet"))


def test_other_files_or_columns_make_another_identity(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    source = ParquetSource.of(str(written(tmp_path / "a")))
    assert ParquetSource.of(str(tmp_path / "a")).identity() == source.identity()
    other = ParquetSource.of(str(written(tmp_path / "b", sizes=(20, 2, 26))))
    assert other.identity() != source.identity()
    assert ParquetSource.of(str(tmp_path / "a"), {"input": "template"}).identity() != source.identity()


def test_a_file_that_was_mended_since_makes_another_identity_though_it_has_as_many_rows_and_bytes(tmp_path):
    path = tmp_path / "a.parquet"

    def source(label, seconds):
        pq.write_table(pa.table({"input": ["a", "b"], "references": [label, "bad"]}), path, compression="none")
        os.utime(path, (seconds, seconds))
        return ParquetSource.of(str(path))

    first, mended = source("yes", 1), source("non", 1)
    assert mended.files == first.files and mended.identity() != first.identity()
    # Where the footers are the same, too, the time tells.
    assert source("yes", 2).identity() != first.identity()
    assert source("yes", 1).identity() == first.identity()


@pytest.mark.parametrize("rows", [18, 22])
def test_a_file_that_has_other_rows_than_planned_is_not_read_in_part(tmp_path, rows):
    source = ParquetSource.of(str(written(tmp_path, sizes=(20,))))
    written(tmp_path, sizes=(rows,))
    with pytest.raises(OSError, match=rf"00\.parquet, found: {rows} rows in it, and 20 when the chunks were planned"):
        all_rows(source, 7)
