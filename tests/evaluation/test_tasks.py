"""Target tasks: readers, sources, and what is left out of the test set."""

import json

import pytest
from datasets import Dataset

from recross_hf import (
    TargetTask,
    load_examples,
    load_queries,
    load_target_task,
    read_target_tasks,
    starter_target_task,
)


def rows(numbers, *, template="one", split="test"):
    return [
        {
            "task": "t",
            "template": template,
            "example_id": f"t|{split}|{template}|#{number}",
            "input": f"{template}: {number}?",
            "outputs": ["yes" if number % 2 else "no"],
        }
        for number in numbers
    ]


def write(folder, test, *query_sets):
    folder.mkdir()
    Dataset.from_list(test).to_parquet(folder / "test.parquet")
    for number, queries in enumerate(query_sets):
        Dataset.from_list(queries).remove_columns("outputs").to_parquet(folder / f"query-{number}.parquet")
    return folder


def test_a_folder_is_read_as_the_authors_files_are(tmp_path):
    task = load_target_task(
        write(tmp_path / "t", rows(range(20)), rows(range(4), split="train"), rows([9], split="train"))
    )
    assert task.name == "t"
    assert len(task.test) == 20
    assert [len(queries) for queries in task.query_sets] == [4, 1]
    assert "references" not in task.query_sets[0].column_names
    assert task.answers[0] in (["no", "yes"], ["yes", "no"])
    assert task.sources[3] == "t|test|#3"


def test_what_a_query_set_holds_is_left_out_of_the_test_whatever_its_template(tmp_path):
    queries = [rows([2, 3]), rows([5], template="two")]
    task = load_target_task(write(tmp_path / "t", rows(range(8)) + rows(range(8), template="two"), *queries))
    assert {source.rsplit("#")[-1] for source in task.sources} == {"0", "1", "4", "6", "7"}
    everything = write(tmp_path / "u", rows(range(3)), rows(range(3)))
    with pytest.raises(ValueError, match="Target task u: all 3 test examples are in a query set"):
        load_target_task(everything)


def test_a_limit_draws_whole_sources_always_the_same_and_keeps_the_answers(tmp_path):
    test = [row for template in ("one", "two", "three") for row in rows(range(10), template=template)]
    task = load_target_task(write(tmp_path / "t", test, *([rows([77])] * 3)))
    smaller, larger = task.limited(11, 2), task.limited(20)
    assert len(smaller.test) == 9
    assert len(set(smaller.sources)) == 3
    assert set(smaller.sources) < set(larger.sources)
    assert smaller.test["id"][:] == task.limited(11).test["id"][:]
    assert (len(smaller.query_sets), len(larger.query_sets)) == (2, 3)
    assert smaller.answers == task.answers[:9]
    assert len(task.limited(1).test) == 3
    assert task.limited(99).test is task.test


def test_identity_changes_with_what_is_predicted_and_with_the_queries(tmp_path):
    task = load_target_task(write(tmp_path / "t", rows(range(9)), rows([77, 78]), rows([79])))
    assert task.identity() == task.limited(9).identity()
    assert task.identity() != task.limited(5).identity()
    assert task.identity(0, 2) != task.identity(0, 1) != task.identity(1, 1)
    assert task.identity(0, 2)["test"] == task.identity()["test"]


def test_a_column_may_name_the_source():
    test = load_examples(Dataset.from_list([{"input": text, "references": ["x"], "task": "t"} for text in "abc"]))
    task = TargetTask("t", test.add_column("source", ["p", "p", "q"]), [load_queries(["d"])])
    assert task.sources == ["p", "p", "q"]
    assert len(task.limited(2).test) in (1, 2)


def test_missing_files_and_query_sets_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"test\.parquet and query-0\.parquet, found neither"):
        load_target_task(tmp_path)
    folder = write(tmp_path / "t", rows(range(3)), rows([7]), rows([8]))
    (folder / "query-0.parquet").unlink()
    with pytest.raises(ValueError, match=r"Expected query sets 0 to 0 in .*, found \[1\]"):
        load_target_task(folder)
    with pytest.raises(ValueError, match="Target task x: expected test examples and at least one query set"):
        TargetTask("x", load_examples(Dataset.from_list([{"input": "a", "references": ["x"]}])), [])


def test_tasks_of_ones_own_are_listed_in_a_file(tmp_path):
    labelled = [{"question": f"Is it {word}?", "answer": "yes"} for word in "abcd"]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    (tmp_path / "monday.txt").write_text("Is it k?\nIs it l?\n")
    Dataset.from_list([{"question": "Is it m?", "answer": "no"}]).to_csv(tmp_path / "tuesday.csv")
    listed = f"""
targets:
  - task: tickets
    test: {tmp_path}/test.jsonl
    queries: [{tmp_path}/monday.txt, {tmp_path}/tuesday.csv]
    columns: {{input: question, references: answer}}
"""
    (tmp_path / "tasks.yaml").write_text(listed)
    (task,) = read_target_tasks(tmp_path / "tasks.yaml")
    assert task.name == "tickets"
    assert len(task.test) == 4  # ids made of row numbers are no overlap
    assert [queries["input"][:] for queries in task.query_sets] == [["Is it k?", "Is it l?"], ["Is it m?"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", "Expected a list `targets` of tasks in .*, found NoneType"),
        ("targets: []", "Expected a list `targets`"),
        (
            "targets: [{task: t}]",
            r"Expected `task`, `test`, `queries` and, optionally, `columns` as entry 0 .*, found task",
        ),
        ("targets: [{task: t, test: x.csv, queries: 3}]", r"a list of files as `queries` of entry 0 .*, found 3"),
        ("targets: [{task: t, test: x.csv, queries: y.csv, colums: {}}]", "found task, test, queries, colums"),
        ("targets: [", "Expected YAML in"),
    ],
)
def test_what_is_no_list_of_tasks_is_refused(content, message, tmp_path):
    (tmp_path / "tasks.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_target_tasks(tmp_path / "tasks.yaml")
    with pytest.raises(FileNotFoundError, match="Expected a YAML file of target tasks, found none"):
        read_target_tasks(tmp_path / "none.yaml")


def test_a_task_of_the_starter():
    task = starter_target_task("bus_stop")
    assert (len(task.test), len(task.query_sets)) == (500, 5)
    assert task.answers[0] == task.test[0]["choices"]


@pytest.mark.parametrize(("name", "num_test", "num_sources"), [("anli_r3", 1000, 200), ("known_unknowns", 34, 34)])
def test_the_authors_files(name, num_test, num_sources, real_data):
    task = load_target_task(real_data / "target" / name)
    assert len(task.test) == num_test
    assert len(set(task.sources)) == num_sources
    assert len(task.query_sets) == 5
