import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value
from datasets.exceptions import DatasetNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from recross_hf import examples_by_task, load_examples, load_queries
from recross_hf.data.inputs import input_texts
from recross_hf.data.schema import EXAMPLE_FEATURES, ExampleError

ROWS = [
    {"id": "a", "task": "t1", "template": "p", "input": "first", "references": ["yes", "yeah"]},
    {"id": "b", "task": "t2", "template": "q", "input": "second", "references": ["no"]},
]
TRIPLES = [["first", ["yes", "yeah"], "t1|train|p|#0"], ["second", ["no"], "t2|test|q|r|#1"]]
WITHOUT_CHOICES = [name for name in EXAMPLE_FEATURES if name != "choices"]


def write_lines(path: Path, records: list) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    Dataset.from_list(rows).to_parquet(str(path))
    return path


def write_json(path: Path, content: object, **kwargs) -> Path:
    path.write_text(json.dumps(content, **kwargs), encoding="utf-8")
    return path


def dataset(**columns: list) -> Dataset:
    return Dataset.from_dict({"input": ["first", "second"], "references": [["yes"], ["no"]]} | columns)


# ---- sources of examples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: Dataset.from_list(ROWS),
        lambda folder: write_parquet(folder / "x.parquet", ROWS),
        lambda folder: write_lines(folder / "x.jsonl", ROWS),
        lambda folder: str(write_json(folder / "x.json", ROWS)),
        lambda folder: write_json(folder / "x.json", ROWS, indent=2),
    ],
    ids=["Dataset", "parquet", "jsonl", "json array", "json array over many lines"],
)
def test_every_source_of_objects_gives_the_schema_and_the_rows(write, tmp_path):
    loaded = load_examples(write(tmp_path))
    assert loaded.column_names == WITHOUT_CHOICES
    assert loaded.features == Features({name: EXAMPLE_FEATURES[name] for name in WITHOUT_CHOICES})
    assert loaded.to_list() == ROWS


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_lines(path, TRIPLES),
        lambda path: write_json(path, TRIPLES),
        lambda path: write_json(path, TRIPLES, indent=1),
    ],
    ids=["one a line", "one array", "one array over many lines"],
)
def test_the_authors_triples_give_id_task_and_template(write, tmp_path):
    loaded = load_examples(write(tmp_path / "x.json"))
    assert loaded.to_list() == [
        {"id": "t1|train|p|#0", "task": "t1", "template": "p", "input": "first", "references": ["yes", "yeah"]},
        {"id": "t2|test|q|r|#1", "task": "t2", "template": "q", "input": "second", "references": ["no"]},
    ]


def test_csv_cells_stay_the_text_that_they_are(tmp_path):
    answers = ["None", "1", "NA", "true", "1.50", '["yes", "no"]']
    rows = [{"input": f"question {row}, 'quoted'\nover two lines", "references": a} for row, a in enumerate(answers)]
    loaded = load_examples(write_csv(tmp_path / "x.csv", rows))
    assert loaded["input"][:] == [row["input"] for row in rows]
    assert loaded["references"][:] == [["None"], ["1"], ["NA"], ["true"], ["1.50"], ["yes", "no"]]


def test_a_csv_input_that_happens_to_be_a_json_list_stays_text(tmp_path):
    rows = [{"input": '["a", "b"]', "references": "x"}, {"input": "plain", "references": "y"}]
    assert load_examples(write_csv(tmp_path / "x.csv", rows))["input"][:] == ['["a", "b"]', "plain"]


def test_texts_that_look_like_dates_or_numbers_stay_texts_in_jsonl(tmp_path):
    rows = [{"input": "2020-01-01", "references": ["2021-02-03"]}, {"input": "2020-01-02", "references": ["1"]}]
    loaded = load_examples(write_lines(tmp_path / "x.jsonl", rows))
    assert loaded["input"][:] == ["2020-01-01", "2020-01-02"]
    assert loaded["references"][:] == [["2021-02-03"], ["1"]]


@pytest.fixture
def two_files(tmp_path):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    first = write_lines(folder / "1.jsonl", [{"input": "first", "references": ["yes"]}])
    second = write_parquet(folder / "deep" / "2.parquet", [{"input": "second", "references": ["no"]}])
    (folder / "README.md").write_text("no data")
    return folder, first, second


@pytest.mark.parametrize(
    "source_of",
    [
        lambda folder, first, second: [first, str(second)],
        lambda folder, first, second: (first, second),
        lambda folder, first, second: folder,
        lambda folder, first, second: f"{folder}/**/*.[jp]*",
        lambda folder, first, second: [f"{folder}/*.jsonl", folder / "deep"],
    ],
    ids=["list", "tuple", "folder", "glob", "list of glob and folder"],
)
def test_several_files_are_read_as_one(source_of, two_files):
    loaded = load_examples(source_of(*two_files))
    assert loaded["input"][:] == ["first", "second"]
    assert loaded["id"][:] == ["unknown/0", "unknown/1"]


def test_files_with_other_columns_cannot_be_read_as_one(two_files):
    folder, first, _ = two_files
    other = write_lines(folder / "3.jsonl", [{"input": "x", "references": ["y"], "task": "t"}])
    with pytest.raises(
        ExampleError, match=r"same columns in every file, found \['input', 'references'\] in .*1\.jsonl"
    ):
        load_examples([first, other])


def test_files_whose_columns_differ_in_type_only_are_read_as_one(tmp_path):
    one = write_lines(tmp_path / "1.jsonl", [{"id": 1, "input": "first", "references": "yes"}])
    many = write_lines(tmp_path / "2.jsonl", [{"id": "b", "input": "second", "references": ["no", "nope"]}])
    loaded = load_examples([one, many])
    assert loaded["references"][:] == [["yes"], ["no", "nope"]]
    assert loaded["id"][:] == ["1", "b"]


def test_a_selection_and_shuffle_of_a_dataset_is_read_in_its_order():
    rows = Dataset.from_list([row | {"id": f"{row['id']}{copy}"} for copy in range(5) for row in ROWS])
    shuffled = rows.shuffle(seed=3).select([7, 2, 5])
    assert load_examples(shuffled).to_list() == shuffled.to_list()
    sliced = rows.select(range(3, 8))  # contiguous: a slice of the table without an indices mapping
    assert load_examples(sliced).to_list() == sliced.to_list()
    plain = rows.map(lambda row: {"references": row["references"][0]}, features=None).select(range(3, 8))
    assert load_examples(plain)["references"][:] == [[answer] for answer in plain["references"]]


def test_columns_are_mapped_and_others_are_left_out():
    source = Dataset.from_dict({"q": ["first"], "a": ["yes"], "n": [7], "other": [1.5]})
    loaded = load_examples(source, columns={"input": "q", "references": "a", "id": "n"}, task="mine")
    expected = {"id": "7", "task": "mine", "template": "", "input": "first", "references": ["yes"]}
    assert loaded.to_list() == [expected]


def test_choices_are_kept():
    choices = [["yes", "no"], None]
    loaded = load_examples(dataset(choices=choices))
    assert loaded.column_names == list(EXAMPLE_FEATURES)
    assert loaded["choices"][:] == [["yes", "no"], []]


def test_a_missing_id_is_made_of_the_task_and_the_row_number():
    assert load_examples(dataset(task=["t1", "t2"]))["id"][:] == ["t1/0", "t2/1"]


# ---- what cannot be read ---------------------------------------------------------------------------------------------


def test_a_missing_column_is_named_with_the_remedy():
    with pytest.raises(ExampleError, match=r"columns input, references, found q, references.*columns=\{'input'"):
        load_examples(Dataset.from_dict({"q": ["x"], "references": [["y"]]}))
    with pytest.raises(ExampleError, match=r"found none\."):
        load_examples(Dataset.from_dict({}))


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"inputs": "q"}, r"Expected `columns` to map id, task.*, found 'inputs'"),
        ({"input": "question"}, r"Expected the column 'question' \(for 'input'\), found input, references"),
    ],
)
def test_a_wrong_column_mapping_is_refused(columns, match):
    with pytest.raises(ExampleError, match=match):
        load_examples(dataset(), columns=columns)


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"input": [1, 2]}, r"strings in 'input', found int64"),
        ({"task": [1, 2]}, r"strings in 'task', found int64"),
        ({"references": [0, 1]}, r"list of strings in 'references', found int64.*'positive' and not 1"),
        ({"references": [[0], [1]]}, r"list of strings in 'references', found list<.*int64"),
        ({"choices": [1, 2]}, r"list of strings in 'choices', found int64"),
        ({"id": ["a", "a"]}, r"unique ids, found 1 that repeat \('a'\)"),
        ({"id": ["a", None]}, r"Expected an id in every row, found 1 rows without one"),
        ({"task": ["a", None], "id": ["x", "y"]}, r"'?task'?"),
    ],
)
def test_columns_of_the_wrong_kind_are_refused(columns, match):
    with pytest.raises(ExampleError, match=match):
        load_examples(dataset(**columns))


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"input": ["first", " \n"]}, r"1 of 2 rows have an empty input \(row 1\).*drop_invalid=True"),
        ({"input": [None, "second"]}, r"1 of 2 rows have an empty input \(row 0\)"),
        ({"references": [[], ["no"]]}, r"1 of 2 rows have no references \(row 0\)"),
        ({"references": [None, ["no"]]}, r"1 of 2 rows have no references \(row 0\)"),
        ({"references": ["yes", None]}, r"1 of 2 rows have no references \(row 1\)"),
        ({"references": [["yes", None], ["no"]]}, r"references"),
        ({"references": [None, None]}, r"2 of 2 rows have no references \(row 0, 1\)"),
    ],
)
def test_invalid_rows_raise_or_are_left_out_with_a_warning(columns, match, caplog):
    source = dataset(**columns)
    with pytest.raises(ExampleError, match=match):
        load_examples(source)
    if columns.get("references") == [None, None]:
        with pytest.raises(ExampleError, match="at least one valid example, found none"):
            load_examples(source, drop_invalid=True)
        return
    assert len(load_examples(source, drop_invalid=True)) == 1
    assert "1 of 2 rows" in caplog.text
    assert "left out" in caplog.text


def test_an_invalid_row_has_its_number_in_the_message_and_ids_keep_it(caplog):
    inputs = ["", "x", "", "", "", "", ""]
    source = Dataset.from_dict({"input": inputs, "references": [["y"]] * 7})
    with pytest.raises(ExampleError, match=r"6 of 7 rows have an empty input \(row 0, 2, 3, 4, 5, \.\.\.\)"):
        load_examples(source)
    assert load_examples(source, drop_invalid=True)["id"][:] == ["unknown/1"]


def test_a_missing_template_is_empty_also_where_only_some_rows_have_none():
    assert load_examples(dataset(template=["p", None]))["template"][:] == ["p", ""]


def test_a_source_that_is_not_there_or_not_one_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No file at .*nothing\.jsonl"):
        load_examples(tmp_path / "nothing.jsonl")
    with pytest.raises(FileNotFoundError, match="No file or folder at"):
        load_examples(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="No file at"):
        load_examples([tmp_path / "*.csv"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="No file at"):
        load_examples(tmp_path / "empty")
    (tmp_path / "x.tsv").write_text("a\tb")
    with pytest.raises(ExampleError, match=r"file that ends in \.parquet, .*found .*x\.tsv"):
        load_examples(tmp_path / "x.tsv")
    with pytest.raises(ExampleError, match="found int"):
        load_examples(7)
    with pytest.raises(ExampleError, match=r"mapping with the splits train, test.*dataset\['train'\]"):
        load_examples(DatasetDict(train=dataset(), test=dataset()))
    with pytest.raises(ExampleError, match="at least one example, found none"):
        load_examples(dataset().select([]))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "found no record in"),
        ('{"input": "x", "references": ["y"]}\n{"input": \n', "JSON record in line 2 of"),
        ('["x", ["y"], "t|train|p|#0"]\n["x", "y", "t|train|p|#1"]\n', "Expected triples .* as record 2 of"),
        ('["x", ["y"], "t|train"]\n', "Expected triples .* as record 1 of"),
    ],
    ids=["empty", "broken line", "outputs that are no list", "identity without parts"],
)
def test_broken_json_names_the_place(text, match, tmp_path):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(ExampleError, match=match):
        load_examples(tmp_path / "x.jsonl")


# ---- queries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["strings", "tuple", "txt", "jsonl", "paths", "Dataset", "folder"])
def test_every_source_of_queries_gives_inputs_without_labels(kind, tmp_path):
    texts = ["Is it ü?", "Is it b?"]
    lines = tmp_path / "x.txt"
    lines.write_text(f"\n  {texts[0]}\n\n \n{texts[1]}", encoding="utf-8")
    objects = tmp_path / "x.jsonl"
    source = {
        "strings": lambda: texts,
        "tuple": lambda: tuple(texts),
        "txt": lambda: str(lines),
        "jsonl": lambda: write_lines(objects, [{"input": text} for text in texts]),
        "paths": lambda: [str(lines)],
        "Dataset": lambda: Dataset.from_dict({"input": texts}),
        "folder": lambda: tmp_path,
    }[kind]()
    loaded = load_queries(source)
    assert loaded.column_names == ["id", "task", "template", "input"]
    assert loaded["input"][:] == texts
    assert loaded["id"][:] == ["unseen/0", "unseen/1"]


def test_a_line_of_a_txt_file_ends_at_the_newline_only(tmp_path):
    (tmp_path / "x.txt").write_text("one\u2028still one\x0cstill\ntwo\r\nthree\n", encoding="utf-8")
    assert load_queries(tmp_path / "x.txt")["input"][:] == ["one\u2028still one\x0cstill", "two", "three"]


def test_strings_that_end_like_files_are_inputs_unless_the_files_are_there(tmp_path):
    assert load_queries(["What is in notes.txt"])["input"][:] == ["What is in notes.txt"]
    with pytest.raises(FileNotFoundError, match="No file at"):
        load_queries([tmp_path / "notes.txt"])


def test_labels_of_a_query_set_are_dropped_with_a_warning(caplog):
    loaded = load_queries(dataset())
    assert "references" not in loaded.column_names
    assert "The query set has references. They are dropped" in caplog.text
    caplog.clear()
    load_queries(dataset(references=[[], []]))
    load_queries(["x"])
    assert not caplog.text


@pytest.mark.parametrize(
    ("queries", "match"),
    [
        (["x", 3], r"found int in row 1 \(1 such of 2\)"),
        ([], "at least one example, found none"),
        (["x", " "], "1 of 2 rows have an empty input"),
    ],
)
def test_wrong_queries_are_refused(queries, match):
    with pytest.raises(ExampleError, match=match):
        load_queries(queries)


def test_empty_queries_can_be_left_out(caplog):
    assert load_queries(["x", " ", "y"], drop_invalid=True)["id"][:] == ["unseen/0", "unseen/2"]
    assert "1 of 3 rows have an empty input (row 1): left out." in caplog.text


# ---- what is written is read -----------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
rows = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=5)


@settings(max_examples=25)
@given(rows, st.booleans(), st.booleans())
def test_texts_survive_json_in_every_form(rows, as_triples, ascii_only):
    if as_triples:
        records = [[text, outputs, f"t|train|p|#{number}"] for number, (text, outputs) in enumerate(rows)]
    else:
        records = [{"input": text, "references": outputs} for text, outputs in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        lines = "".join(json.dumps(record, ensure_ascii=ascii_only) + "\n" for record in records)
        path.write_bytes(lines.encode())
        loaded = load_examples(path)
    assert list(zip(loaded["input"], loaded["references"], strict=True)) == rows


@given(rows)
def test_texts_survive_parquet(rows):
    columns = {"input": [text for text, _ in rows], "references": [outputs for _, outputs in rows]}
    features = Features({"input": Value("string"), "references": List(Value("string"))})
    with tempfile.TemporaryDirectory() as folder:
        Dataset.from_dict(columns, features=features).to_parquet(f"{folder}/x.parquet")
        loaded = load_examples(f"{folder}/x.parquet")
    assert list(zip(loaded["input"], loaded["references"], strict=True)) == rows


@given(rows, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.booleans())
def test_texts_survive_csv(rows, quoting, with_mark):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        with path.open("w", newline="", encoding="utf-8-sig" if with_mark else "utf-8") as file:
            writer = csv.writer(file, quoting=quoting)
            writer.writerow(["input", "references"])
            writer.writerows([text, json.dumps(outputs)] for text, outputs in rows)
        loaded = load_examples(path)
    assert list(zip(loaded["input"], loaded["references"], strict=True)) == rows


@pytest.mark.parametrize("name", ["a[1]", "{x}", "*", "a?", "ä b", "task=t", "[!a]"])
@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_names_that_could_be_patterns_are_names(name, kind, tmp_path):
    write = {"parquet": write_parquet, "jsonl": write_lines, "csv": write_csv}[kind]
    for folder, row in (("a1", 0), ("b", 0), (name, 1)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / f"{folder}.{kind}", [ROWS[row] | {"references": "yes"}])
    for source in (tmp_path / name, tmp_path / name / f"{name}.{kind}"):
        assert load_examples(source)["input"][:] == load_queries(str(source))["input"][:] == ["second"]


@pytest.mark.parametrize("text", ["I want a refund", "word" * 100])
def test_one_text_is_no_query_set(text):
    with pytest.raises(ExampleError, match=r"found one text \(.*Pass `\[text\]`"):
        load_queries(text)


def test_examples_are_split_by_task_and_the_same_ones_are_drawn_of_a_large_one():
    rows = [
        {"input": f"{task}{n}", "references": ["x"], "task": task} for n in range(6) for task in "cab"[: 1 + n % 3]
    ]
    examples = load_examples(Dataset.from_list(rows))
    tasks = examples_by_task(examples)
    assert {task: part["input"][:] for task, part in tasks.items()} == {
        task: [row["input"] for row in rows if row["task"] == task] for task in "abc"
    }
    assert list(tasks) == ["a", "b", "c"]
    drawn = examples_by_task(examples, max_examples_per_task=3)
    assert [len(part) for part in drawn.values()] == [3, 2, 3]
    assert drawn["c"]["input"][:] == examples_by_task(examples, max_examples_per_task=3)["c"]["input"][:]
    assert set(drawn["c"]["input"]) < set(tasks["c"]["input"])
    assert drawn["c"]["input"][:] == sorted(drawn["c"]["input"])
    others = {
        tuple(examples_by_task(examples, max_examples_per_task=3, seed=seed)["c"]["input"][:]) for seed in range(9)
    }
    assert len(others) > 1


# ---- large data sets -------------------------------------------------------------------------------------------------


def test_what_a_file_holds_as_the_schema_has_it_stays_in_the_file(tmp_path):
    rows = [
        {"id": f"t/{n}", "task": "t", "template": "", "input": f"{n} " * 500, "references": ["x"]} for n in range(3000)
    ]
    Dataset.from_list(rows, features=Features({n: EXAMPLE_FEATURES[n] for n in rows[0]})).to_parquet(
        tmp_path / "a.parquet"
    )
    del rows
    before = pa.total_allocated_bytes()
    loaded = load_examples(tmp_path / "a.parquet")
    held = pa.total_allocated_bytes() - before
    assert held < 0.05 * loaded.data.nbytes
    assert loaded[2999]["input"] == "2999 " * 500


def test_the_fingerprint_tells_sources_and_what_was_made_of_them_apart():
    source = Dataset.from_dict({"input": ["a", "b"], "other": ["c", "d"], "references": [["x"], ["y"]]})
    kinds = [({}, "t"), ({"input": "other"}, "t"), ({}, "u")]
    found = [load_examples(source, columns=columns, task=task)._fingerprint for columns, task in kinds]
    found.append(load_examples(source.select([0]), task="t")._fingerprint)
    assert len(set(found)) == 4
    assert load_examples(source, task="t")._fingerprint == found[0]


# ---- texts as other programs write them ------------------------------------------------------------------------------

BOM = "\ufeff"
# What a line of a txt file can hold: no line end in it, no space around it.
lines = texts.map(lambda text: text.replace("\r", " ").replace("\n", " ").replace("\x00", "").strip()).filter(bool)


def unmarked(text: str) -> bool:
    return not text.startswith(BOM)  # which cannot be told from a file's mark


@settings(max_examples=40, deadline=None)
@given(st.lists(lines.filter(unmarked), min_size=1, max_size=5), st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_texts_survive_txt_with_any_line_end(inputs, with_mark, end):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.txt"
        path.write_bytes((BOM * with_mark + end.join(inputs) + end).encode())
        assert load_queries(path)["input"][:] == inputs


@settings(max_examples=40, deadline=None)
@given(rows, st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_texts_survive_json_with_a_mark_and_any_line_end(rows, with_mark, end, as_array):
    records = [{"input": text, "references": outputs} for text, outputs in rows]
    content = (
        json.dumps(records, ensure_ascii=False, indent=1).replace("\n", end)
        if as_array
        else "".join(json.dumps(record, ensure_ascii=False) + end for record in records)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.json" if as_array else "x.jsonl")
        path.write_bytes((BOM * with_mark + content).encode())
        loaded = load_examples(path)
    assert list(zip(loaded["input"], loaded["references"], strict=True)) == rows


@settings(max_examples=40, deadline=None)
@given(rows, st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_texts_survive_csv_with_a_mark_and_any_line_end(rows, with_mark, end, as_json):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        with path.open("w", newline="", encoding="utf-8-sig" if with_mark else "utf-8") as file:
            writer = csv.writer(file, lineterminator=end)
            writer.writerow(["input", "references"])
            for text, outputs in rows:
                writer.writerow([text, json.dumps(outputs) if as_json else str(outputs)])
        loaded = load_examples(path)
    assert list(zip(loaded["input"], loaded["references"], strict=True)) == rows


quoted = st.one_of(texts, st.text("'\" \\\n,][", min_size=1).filter(str.strip))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, st.lists(quoted, min_size=1, max_size=4)), min_size=1, max_size=5))
def test_what_dataset_to_csv_writes_is_read_as_it_was(rows):
    columns = {"input": [text for text, _ in rows], "references": [outputs for _, outputs in rows]}
    with tempfile.TemporaryDirectory() as folder:
        Dataset.from_dict(columns).to_csv(f"{folder}/x.csv")
        try:
            loaded = load_examples(f"{folder}/x.csv")
        except ExampleError as error:
            # pandas writes a carriage return without quotes, so that nobody can tell it from the end of a row.
            assert any("\r" in text for text in columns["input"]) and "quote cells that hold line ends" in str(error)
            return
    assert list(zip(loaded["input"], loaded["references"], strict=True)) == rows


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("['yes' 'Yes.']", ["yes", "Yes."]),
        ("""["don't" 'say "no"']""", ["don't", 'say "no"']),
        ("['one']", ["one"]),
        ("['one'\n 'two']", ["one", "two"]),
        ("['one', 'two']", ["one", "two"]),
        ("[ 'it\\'s' ]", ["it's"]),
        ('["one", "two"]', ["one", "two"]),
        (' [ "one" ]', ["one"]),
    ],
)
def test_lists_that_are_written_in_a_cell_are_lists(cell, expected, tmp_path):
    path = write_csv(tmp_path / "x.csv", [{"input": "x", "references": cell, "choices": "[]"}])
    assert load_examples(path)["references"][:] == [expected]
    assert load_examples(path)["choices"][:] == [[]]


@pytest.mark.parametrize(
    "cell",
    ["['a' ... 'z']", "['a' None]", "['a' 1]", '["a", 1]', '["a", null]', '["a"', "['a''b']", "['a'] + ['b']", "['a', ['b']]",
     "[ 'a', print('b')]", "['\\ud800']"],
)  # fmt: skip
def test_what_begins_like_a_list_and_is_none_is_refused(cell, tmp_path):
    path = write_csv(tmp_path / "x.csv", [{"input": "w", "references": "['a']"}, {"input": "x", "references": cell}])
    with pytest.raises(ExampleError, match=r"a list of texts in 'references' of row 1, found .*Write it as JSON"):
        load_examples(path)


def test_printed_lists_beside_plain_texts_are_refused_as_either_could_be_meant(tmp_path):
    rows = [{"input": "x", "references": "['a', 'b']"}, {"input": "y", "references": "42"}]
    match = (
        r"found both: \"\['a', 'b'\]\" in row 0 and '42' in row 1.*one text that looks like a list as a list of one"
    )
    with pytest.raises(ExampleError, match=match):
        load_examples(write_csv(tmp_path / "x.csv", rows))
    rows[0]["references"] = json.dumps(["['a', 'b']"])
    assert load_examples(write_csv(tmp_path / "y.csv", rows))["references"][:] == [["['a', 'b']"], ["42"]]
    plain = [{"input": "x", "references": "[]"}, {"input": "y", "references": "[1, 2]"}]
    assert load_examples(write_csv(tmp_path / "z.csv", plain))["references"][:] == [["[]"], ["[1, 2]"]]


@pytest.mark.parametrize("references", [[""], ["", "x"], ["x", " \n"]])
def test_an_empty_reference_is_refused_wherever_it_comes_from(references, tmp_path, caplog):
    rows = [{"input": "a", "references": ["y"]}, {"input": "b", "references": references}]
    match = r"1 of 2 rows have an empty text among the references \(row 1\)\. Write what the model is to answer.*'unanswerable'"
    cell = [row | {"references": json.dumps(row["references"])} for row in rows]
    for source in (
        Dataset.from_list(rows),
        write_lines(tmp_path / "x.jsonl", rows),
        write_parquet(tmp_path / "x.parquet", rows),
        write_csv(tmp_path / "x.csv", cell),
    ):
        with pytest.raises(ExampleError, match=match):
            load_examples(source)
        assert load_examples(source, drop_invalid=True)["input"][:] == ["a"]


def test_a_question_without_answers_as_in_squad_v2_is_no_example():
    with pytest.raises(ExampleError, match=r"have no references \(row 1\)"):
        load_examples(dataset(references=[["yes"], []]))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.csv", "input,references,input\na,b,c\n", r"each column of .*x\.csv once, found 'input' several times"),
        ("x.jsonl", '{"input": "a", "references": "b"}\n{"input": "a", "input": "b", "references": "c"}\n',
         r"each name once in line 2 of .*x\.jsonl, found the name 'input' twice"),
        ("x.json", '[{"input": "a",\n "input": "b", "references": "c"}]', r"each name once in .*x\.json, found"),
        ("x.csv", 'input,references\na,"b\nc,d\ne,f\n', r"csv in .*x\.csv, found in the row that begins in line 2: unexpected end"),
        ("x.csv", 'input,references\na,"b" c\n', r"csv in .*x\.csv, found in the row that begins in line 2"),
        ("x.jsonl", '{"input": "a", "references": "\\ud800"}', r"in line 1 of .*, found \\ud800 in line 1: half of a surrogate"),
        ("x.jsonl", '{"input": "\\ud83d\\ude00", "references": "x"}\n{"input": "\\udc00", "references": "y"}',
         r"found \\udc00 in line 2: half"),
        ("x.json", '[{"input": "a", "references": "b"},\n{"input": "\\ud800",\n "references": "b"}]', r"found \\ud800 in line 2: half"),
        ("x.jsonl", '{"input": "a", "references": "b", "id": "x"}\n{"input": "a", "references": "b", "id": 1}',
         r"found text in 'id' of record 1 and a number in record 2 \('1'\)"),
        ("x.jsonl", '{"input": "a", "references": ["b"]}\n{"input": "a", "references": ["b", 2]}',
         r"found text in 'references' of record 1 and a number in record 2 \('2'\)"),
        ("x.jsonl", '{"input": "a", "references": null}\n{"input": "a", "references": "b"}\n{"input": "a", "references": true}',
         r"found text in 'references' of record 2 and true or false in record 3"),
        ("x.jsonl", '{"input": "a", "references": "b"}\n{"input": "a", "references": ["b"]}',
         r"found text in 'references' of record 1 and a list in record 2"),
        ("x.jsonl", '{"input": "a", "references": "b", "n": 1' + "0" * 40 + "}", "values of one type in each field"),
        ("x.jsonl", "[" * 100_000, "lists within lists|JSON"),
    ],
)  # fmt: skip
def test_what_would_lose_or_change_a_value_names_the_place(name, content, match, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ExampleError, match=match):
        load_examples(tmp_path / name)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.json", "x.jsonl"])
def test_another_encoding_names_the_file_the_line_and_the_remedy(name, encoding, end, tmp_path):
    records = [{"input": "naive", "references": "x"}, {"input": "naïve", "references": "x"}]
    content = {
        "x.txt": "naive\nnaïve\n",
        "x.csv": "input,references\nnaive,x\nnaïve,x\n",
        "x.json": json.dumps(records, ensure_ascii=False, indent=0),
        "x.jsonl": "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
    }[name]
    (tmp_path / name).write_bytes(content.replace("\n", end).encode(encoding))
    line = {"x.txt": 2, "x.csv": 3, "x.json": 7, "x.jsonl": 2}[name] if encoding == "latin-1" else 1
    with pytest.raises(ExampleError, match=rf"UTF-8 in .*{name}, found .* line {line}.*iconv"):
        load_queries(tmp_path / name)


# ---- inputs of other types -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        Dataset.from_dict({"input": ["a b", "c"]})["input"],
        pd.Series(["a b", "c"], index=[7, 3]),
        pd.Series(["a b", "c"], dtype="string"),
        np.array(["a b", "c"]),
        np.array(["a b", "c"], dtype=object),
        pd.DataFrame({"input": ["a b", "c"], "other": [1, 2]}, index=[5, 1]),
        {"input": ["a b", "c"]},
        {"input": np.array(["a b", "c"]), "n": (1, 2)},
    ],
    ids=["Column", "Series", "string Series", "array", "object array", "DataFrame", "mapping", "mapping of arrays"],
)
def test_inputs_in_whatever_holds_strings_are_read(source):
    assert load_queries(source)["input"][:] == ["a b", "c"]
    assert input_texts(source) == ["a b", "c"]
    assert {type(text) for text in input_texts(source)} == {str}


def test_a_generator_of_inputs_is_read_once():
    assert load_queries(text for text in ["a", "b"])["input"][:] == ["a", "b"]


def test_tables_of_pandas_and_mappings_are_examples_too():
    columns = {"q": ["a", "b"], "references": [["x"], ["y", "z"]]}
    for source in (columns, pd.DataFrame(columns)):
        loaded = load_examples(source, columns={"input": "q"})
        assert loaded["references"][:] == [["x"], ["y", "z"]] and loaded["input"][:] == ["a", "b"]


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({"a", "b"}, "found set"),
        (b"text", "found bytes"),
        (None, "found NoneType"),
        (7, "found int"),
        (0.5, "found float"),
        (np.array("a"), "found ndarray"),
        ([["a"]], "found list in row 0"),
        (np.array([["a"]]), "found ndarray in row 0"),
        (["a", None], "found NoneType in row 1"),
        (pd.Series(["a", None], dtype=object), "found NoneType in row 1"),
        ([b"a"], "found bytes in row 0"),
        (["a", "\ud800"], "text in row 1, found .*half of a surrogate pair"),
        ({"input": "one text"}, "a list of values for each column of a mapping, found str for 'input'"),
        ({"input": ["a"], "b": ["c", "d"]}, "columns of one length"),
        ("", "found an empty text"),
    ],
)
def test_inputs_of_other_types_are_refused_with_the_remedy(source, match):
    with pytest.raises(ExampleError, match=rf"Expected .*{match}.*(Pass|Read|Mend)"):
        load_queries(source)
    if isinstance(source, str):
        with pytest.raises(FileNotFoundError, match="No file or folder at"):
            load_examples(source)  # and not the current folder
    else:
        with pytest.raises(ExampleError, match=rf"Expected .*{match}.*(Pass|Read|Mend)"):
            input_texts(source)


def test_examples_that_are_rows_in_a_list_are_refused_with_the_remedy():
    with pytest.raises(ExampleError, match=r"a list of paths, found dict in it.*Dataset\.from_list"):
        load_examples([{"input": "a", "references": ["b"]}])


def test_folders_and_files_with_spaces_in_their_names_are_read(tmp_path, monkeypatch):
    folder = tmp_path / "my own data"
    folder.mkdir()
    write_lines(folder / "all of it.jsonl", [{"input": "first", "references": ["yes"]}])
    monkeypatch.chdir(tmp_path)
    for source in (str(folder), "my own data", "my own data/all of it.jsonl", "my own data/*.jsonl"):
        assert load_examples(source)["input"][:] == load_queries(source)["input"][:] == ["first"]
    (tmp_path / "nothing to read").mkdir()
    for load in (load_examples, load_queries):
        with pytest.raises(FileNotFoundError, match="No file at nothing to read"):
            load("nothing to read")


@pytest.mark.parametrize(
    "name", ["./data", "here/data", "data.tsv", "some/data.csv", "a/b/c", "~/data", "my data.json", "data.txt"]
)
def test_a_path_that_leads_nowhere_is_not_looked_for_on_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(
        "recross_hf.data.readers.load_dataset", lambda *args, **kwargs: pytest.fail("the Hub was asked")
    )
    for load in (load_examples, load_queries):
        with pytest.raises(FileNotFoundError, match="No file"):
            load(name)


def test_a_name_that_is_neither_here_nor_on_the_hub_says_both(monkeypatch):
    for error, kind in (
        (ConnectionError("no network"), ConnectionError),
        (DatasetNotFoundError("gone"), FileNotFoundError),
    ):

        def fails(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr("recross_hf.data.readers.load_dataset", fails)
        with pytest.raises(
            kind, match=r"No file or folder at squad in .*, and no data set of this name .* from the Hub"
        ):
            load_examples("squad")


# ---- what stands for something else --------------------------------------------------------------------------------


def test_each_file_is_read_once_and_hidden_copies_never(tmp_path):
    record = '{"input": "a", "references": ["b"]}\n'
    for name in ("a.jsonl", "B.JSONL", ".ipynb_checkpoints/a-checkpoint.jsonl", "._a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(record)
    assert len(load_examples(tmp_path)) == 2
    assert len(load_examples([str(tmp_path / "a.jsonl"), str(tmp_path / "*.jsonl")])) == 1


def test_names_of_missing_files_are_no_inputs(tmp_path):
    (tmp_path / "here.txt").write_text("an input\n")
    for names in (["here.txt", "missing.txt"], ["missing.txt"]):
        with pytest.raises(FileNotFoundError, match=r"No file at .*missing\.txt"):
            load_queries([str(tmp_path / name) for name in names])
    assert load_queries(["What is in notes.txt", "What is in data.csv"]).num_rows == 2


def test_a_folder_of_the_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "inputs.txt").write_text("an input\n")
    assert load_queries("~/inputs.txt")["input"][:] == ["an input"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS.*git lfs pull"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS.*git lfs pull"),
        ("a.jsonl", b"\x1f\x8b\x08\x00", "found a compressed file. Unpack it"),
        ("a.txt", b"<!DOCTYPE html>\n<html>\n", "found a page of HTML"),
        ("a.csv", b"input;references\na, or b?;no\n", "found ';' in its header"),
        ("a.csv", b"input\treferences\na\tno\n", "found '.t' in its header"),
        ("a.jsonl.gz", b"", "Unpack it"),
    ],
)
def test_what_stands_in_for_a_file_is_told_by_name(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExampleError, match=message) as raised:
        load_queries(str(tmp_path / name))
    assert name in str(raised.value)


def test_a_folder_of_save_to_disk_says_how_it_is_opened(examples, tmp_path):
    examples.select(range(2)).save_to_disk(tmp_path / "saved")
    with pytest.raises(ExampleError, match=r"load_from_disk\('.*saved'\)"):
        load_examples(tmp_path / "saved")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["q"]}, "to map names of the schema .* found list"),
        ({"drop_invalid": "false"}, "to be True or False, found 'false'"),
    ],
)
def test_arguments_of_another_type_are_not_taken_for_true(arguments, message):
    with pytest.raises(TypeError, match=message):
        load_examples({"input": ["a", ""], "references": ["b", "c"]}, **arguments)


def test_columns_the_wrong_way_round_are_turned_in_the_message():
    with pytest.raises(ExampleError, match=r"other way round: `columns=\{'input': 'question'\}`"):
        load_examples({"question": ["a"], "references": ["b"]}, columns={"question": "input"})


@pytest.mark.parametrize("arguments", [{"split": "test"}, {"split": "train"}, {"revision": "v1"}, {"name": "config"}])
@pytest.mark.parametrize("read", [load_examples, load_queries])
def test_a_split_of_what_is_not_on_the_hub_is_refused_and_not_ignored(read, arguments, examples, tmp_path):
    examples.to_parquet(tmp_path / "a.parquet")
    name = next(iter(arguments))
    for source in (tmp_path / "a.parquet", str(tmp_path), [tmp_path / "a.parquet"], examples, examples[:]):
        with pytest.raises(
            ValueError, match=f"`{name}` beside the name of a data set on the Hub, found .*all rows are read"
        ):
            read(source, **arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.7 text\n", "found a document or a picture"),
        (b"{\\rtf1 text}\n", "found a document or a picture"),
        (b"an input\na\0b\n", "found a zero byte in line 2"),
    ],
)
def test_documents_and_programs_are_no_inputs(content, message, tmp_path):
    (tmp_path / "inputs.txt").write_bytes(content)
    with pytest.raises(ExampleError, match=message):
        load_queries(tmp_path / "inputs.txt")
