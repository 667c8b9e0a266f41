import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from recross_hf import examples_by_task, load_examples, load_queries
from recross_hf.data.schema import EXAMPLE_FEATURES, ExampleError, take_rows

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


@pytest.mark.parametrize("text", ["I want a refund", "word" * 100])
def test_one_text_is_no_query_set(text):
    with pytest.raises(ExampleError, match=r"found one text \(.*Pass `\[text\]`"):
        load_queries(text)


def test_rows_are_taken_in_any_order_and_with_any_index(examples):
    shuffled = examples.shuffle(seed=0)
    indexed = shuffled.add_column("vector", [[float(number)] for number in range(48)])
    indexed.add_faiss_index("vector")  # `select` refuses it
    for rows in ([5, 2, 5], np.array([47, 0]), []):
        taken = take_rows(shuffled, rows)
        assert taken.features == examples.features
        assert taken.to_list() == [shuffled[int(row)] for row in rows]
        assert take_rows(indexed, rows)["id"][:] == taken["id"][:]


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
