import io
import json
import textwrap

import pytest
import yaml
from datasets import Dataset
from loopback_hub import CONVERTED, MAIN

from recross_hf import TaskSource, load_examples, read_task_sources
from recross_hf.mixture.sources import SourceError, sources_of_files
from recross_hf.mixture.task import open_rows

ROWS = [{"text": f"text {number}", "label": number % 2} for number in range(2500)]


def read(source):
    rows = open_rows(source)
    batches = list(rows.batches())
    assert sum(map(len, batches)) == rows.num_rows
    return [row for batch in batches for row in batch.take(range(len(batch)))]


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json", "csv"])
def test_rows_of_every_kind_of_file_come_in_order_and_in_batches(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        Dataset.from_list(ROWS).to_parquet(path)
    elif kind == "csv":
        path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS))
    else:
        path.write_text(json.dumps(ROWS) if kind == "json" else "\n".join(map(json.dumps, ROWS)))
    source = TaskSource("t", files=str(path), templates="{{text}} ||| {{label}}")
    expected = [row | {"label": str(row["label"])} for row in ROWS] if kind == "csv" else ROWS
    assert read(source) == expected
    rows = open_rows(source)
    assert rows.num_rows == 2500
    assert rows.column_names == (("text", "label") if kind in ("parquet", "csv") else ())
    assert [(batch.first, len(batch)) for batch in rows.batches()] == [(0, 1024), (1024, 1024), (2048, 452)]
    third = list(rows.batches())[2]
    assert third.take([1, 451]) == [expected[2049], expected[2499]]
    assert third.column("text")[:2] == ["text 2048", "text 2049"]
    assert third.column("nothing") == [None] * 452


def test_several_files_are_one_table_and_their_state_is_known(tmp_path):
    for number in range(2):
        Dataset.from_list(ROWS[number * 10 : number * 10 + 10]).to_parquet(tmp_path / f"{number}.parquet")
    source = TaskSource("t", files=str(tmp_path / "*.parquet"), templates="{{text}} ||| {{label}}")
    assert read(source) == ROWS[:20]
    version = open_rows(source).version
    assert open_rows(source).version == version
    Dataset.from_list(ROWS[:3]).to_parquet(tmp_path / "1.parquet")
    assert open_rows(source).version != version


def test_the_authors_triples_are_examples(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps([["Is it?", ["yes"], "glue-mrpc|train|equivalent|#3"]]))
    (row,) = read(TaskSource("t", files=str(tmp_path / "t.json")))
    assert row == {
        "id": "glue-mrpc|train|equivalent|#3",
        "task": "glue-mrpc",
        "template": "equivalent",
        "input": "Is it?",
        "references": ["yes"],
    }


@pytest.mark.parametrize("indent", [None, 2])
def test_a_task_of_natural_instructions_is_read_by_sources_and_by_load_examples(tmp_path, indent):
    path = tmp_path / "task007_weather.json"
    task = {
        "Definition": ["Say whether it rains."],
        "Positive Examples": [],
        "Instances": [
            {"id": "task007-a", "input": "Drops fall.", "output": ["yes", "it does"]},
            {"input": "The sun shines.", "output": "no"},
        ],
    }
    path.write_text(json.dumps(task, indent=indent))
    examples = load_examples(path)
    assert examples["input"][:] == ["Say whether it rains.\n\nDrops fall.", "Say whether it rains.\n\nThe sun shines."]
    assert examples["references"][:] == [["yes", "it does"], ["no"]]
    assert examples["id"][:] == ["task007-a", "task007_weather-1"]
    assert examples["task"][:] == ["task007_weather"] * 2
    assert [row["references"] for row in read(TaskSource("t", files=str(path)))] == [["yes", "it does"], ["no"]]
    task["Instances"].append({"input": 3})
    path.write_text(json.dumps(task, indent=indent))
    with pytest.raises(ValueError, match=r"Expected `input` and `output` in each of the instances in .*as number 2"):
        load_examples(path)


def test_a_folder_of_files_is_a_task_a_folder_and_files_of_one_folder_are_a_task_each(tmp_path):
    for name in ("a/train", "b/train", "c", "d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Dataset.from_list(ROWS[:2]).to_parquet(tmp_path / f"{name}.parquet")
    tasks = sources_of_files(str(tmp_path / "*" / "train.parquet"), columns={"input": "text"})
    assert [(source.task, source.columns) for source in tasks] == [("a", {"input": "text"}), ("b", {"input": "text"})]
    assert [source.task for source in sources_of_files(str(tmp_path / "*.parquet"))] == ["c", "d"]
    Dataset.from_list(ROWS[:2]).to_parquet(tmp_path / "a" / "other.parquet")
    with pytest.raises(SourceError, match=r"Expected one file for each task of .*, found several for a"):
        sources_of_files(str(tmp_path / "*" / "*.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("x.parquet", b"not parquet", "Task t: expected parquet in .*x.parquet"),
        ("x.txt", b"one line", "Task t: expected parquet, json, jsonl or csv, found .*x.txt: it has no answers"),
        ("x.json", b"3", "Task t: Expected objects, found int as record 1"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(tmp_path, name, content, error):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=error):
        read(TaskSource("t", files=str(tmp_path / name)))


# ---- what makes examples of rows -------------------------------------------------------------------------------------


def test_one_template_as_it_is():
    source = TaskSource("t", files="x", templates="{{a}}? ||| {{answer_choices[b]}}", answer_choices="no ||| yes")
    (template,) = source.load_templates()
    assert template.example({"a": "Is it", "b": 1}) == {
        "input": "Is it?",
        "references": ["yes"],
        "choices": ["no", "yes"],
    }


def test_templates_of_a_file_or_a_folder_and_some_of_them(tmp_path):
    content = {
        "dataset": "tickets",
        "templates": {str(n): {"name": f"t{n}", "jinja": "{{a}} ||| {{b}}"} for n in range(3)},
    }
    (tmp_path / "tickets").mkdir()
    path = tmp_path / "tickets" / "templates.yaml"
    path.write_text(yaml.safe_dump(content))

    def names(templates, **settings):
        source = TaskSource("t", files="x", templates=templates, **settings)
        return [template.name for template in source.load_templates(folder=tmp_path)]

    assert names(str(path)) == names("tickets") == ["t0", "t1", "t2"]
    assert names("tickets", template_names=("t2", "t0")) == ["t2", "t0"]
    with pytest.raises(SourceError, match=r"Task t: expected a template of tickets, found 't9'. There are 't0', 't1'"):
        names("tickets", template_names=("t9",))
    with pytest.raises(SourceError, match="Task t: Expected templates for 'other'"):
        names("other")
    assert TaskSource("t", files="x").load_templates() == []


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"task": "a/b", "files": "x"}, "Expected a task's name of letters, .* found 'a/b'"),
        ({"task": "t"}, "Expected `dataset` or `files` for the task t, one of them"),
        ({"task": "t", "files": "x", "dataset": "y"}, "Expected `dataset` or `files` for the task t"),
        (
            {"task": "t", "files": "x", "templates": "a ||| b", "columns": {"input": "a"}},
            "Expected `templates` or `columns` for the task t, found both",
        ),
        ({"task": "t", "files": "x", "split": "test"}, "Expected `split` of a data set on the Hub, found `files`"),
        ({"task": "t", "files": "x", "config": "c", "revision": "v"}, "Expected `config`, `revision` of a data set"),
    ],
)
def test_a_task_that_makes_no_sense_says_so(fields, error):
    with pytest.raises(SourceError, match=error):
        TaskSource(**fields)


def test_a_yaml_file_lists_tasks(tmp_path):
    path = tmp_path / "tasks.yaml"
    path.write_text(
        textwrap.dedent("""
            upstream:
              - task: tickets
                files: tickets/*.csv
                templates: "{{text}} Which desk? ||| {{desk}}"
              - task: faq
                files: faq.jsonl
                columns: {input: question, references: answer}
                license: mit
            targets:
              - {task: cb, dataset: aps/super_glue, config: cb, split: validation, templates: super_glue/cb,
                 template_names: [can we infer]}
        """)
    )
    tasks = read_task_sources(path)
    assert [source.task for source in tasks["upstream"]] == ["tickets", "faq"]
    assert tasks["upstream"][1].columns == {"input": "question", "references": "answer"}
    assert tasks["targets"][0].template_names == ("can we infer",)
    assert tasks["targets"][0].origin == "aps/super_glue (cb), validation"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("a: [", "Expected YAML in .*tasks.yaml"),
        ("tasks: []", "Expected `upstream` and, optionally, `targets` in .*, found tasks"),
        ("- task: a", "found list"),
        ("", "found nothing"),
        ("upstream: [a]", "Expected a list of mappings, each with `task`, under `upstream`"),
        ("upstream: [{task: a, file: x}]", "found 'file' in 'a'. Did you mean 'files'"),
        ("upstream: [{task: a, files: [x]}]", r"Expected `files` of 'a' in .* to be str, found \['x'\]"),
        ("upstream: [{task: a, files: x, columns: y}]", "Expected `columns` of 'a' in .* to be dict"),
        ("upstream: [{task: a, files: x}, {task: a, files: y}]", "Expected each task once .* found more of a"),
        ("upstream: !!python/object/apply:os.system [ls]", "Expected YAML in"),
    ],
)
def test_a_yaml_file_with_a_fault_says_which(tmp_path, content, error):
    path = tmp_path / "tasks.yaml"
    path.write_text(content)
    with pytest.raises(SourceError, match=error):
        read_task_sources(path)


def test_a_file_of_tasks_that_is_not_there_says_what_comes_with_the_package(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"With the package come .*recross"):
        read_task_sources(tmp_path / "none.yaml")


# ---- the Hub ---------------------------------------------------------------------------------------------------------


def parquet(rows):
    buffer = io.BytesIO()
    Dataset.from_list(rows).to_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def hub(loopback_hub):
    before = dict(loopback_hub.store.repositories)
    fill(loopback_hub)
    yield loopback_hub
    loopback_hub.store.repositories = before


def fill(hub):
    def add(name, files, reference=MAIN):
        hub.add("datasets", name, files, reference)

    add("org/native", {"README.md": b"---\nlicense: cc-by-4.0\n---\n", "data/train-0.parquet": parquet(ROWS[:30])})
    add("org/scripted", {"scripted.py": b"raise SystemExit('this must not run')"})
    converted = {f"plain/train/{part}.parquet": parquet(ROWS[part * 10 : part * 10 + 10]) for part in range(2)}
    add("org/scripted", converted | {"plain/partial-test/0.parquet": parquet(ROWS[:3])}, CONVERTED)
    add("org/gated", {"data/train-0.parquet": parquet(ROWS[:3])})
    hub.repository("datasets", "org/gated").gated = "manual"
    add("bigscience/P3", {"P3.py": b"raise SystemExit('this must not run')"})
    rendered = [
        {
            "inputs": [1],
            "inputs_pretokenized": f"Is {n} odd?\n",
            "targets_pretokenized": "\nyes",
            "answer_choices": ["yes", "no"],
        }
        for n in range(5)
    ]
    configs = {f"cb_{name}/train/0.parquet": parquet(rendered) for name in ("guess", "infer")}
    # A row a candidate answer, the wrong ones included; and a template that suits fewer rows.
    configs["cb_guess_score_eval/train/0.parquet"] = parquet(rendered * 3)
    configs["anli_guess/train/0.parquet"] = parquet(rendered)
    configs["anli_infer/train/0.parquet"] = parquet(rendered[:3])
    add("bigscience/P3", configs | {"README.md": b""}, CONVERTED)
    add("org/dotted", {"dotted.py": b""})
    add("org/dotted", {"3.0.0/train/0.parquet": parquet(ROWS[:4]), "README.md": b""}, CONVERTED)
    add("org/unconverted", {"unconverted.py": b""})


def rows_of(fields):
    from recross_hf import TaskSource
    from recross_hf.mixture.task import open_rows

    try:
        rows = open_rows(TaskSource(**fields))
        batches = list(rows.batches())
    except ValueError as error:
        return {"error": str(error)}
    found = [row for batch in batches for row in batch.take(range(len(batch)))]
    known = {
        name: getattr(rows, name) for name in ("version", "license", "column_names", "notes", "columns", "is_padded")
    }
    return {"rows": found, "firsts": [batch.first for batch in batches], **known}


@pytest.fixture
def read_hub(run_client):
    """Reads in a process of its own: the clients look at the environment when they are imported."""

    def read(settings=None, **fields):
        return run_client(**settings or {})(rows_of, fields={"task": "t"} | fields)

    return read


def test_a_data_set_on_the_hub_is_read_with_its_commit_and_licence(hub, read_hub):
    found = read_hub(dataset="org/native", templates="{{text}} ||| {{label}}")
    assert found["rows"] == ROWS[:30]
    assert found["version"] == f"org/native@{hub.repository('datasets', 'org/native').commit().oid}"
    assert found["license"] == "cc-by-4.0"
    assert found["column_names"] == ["text", "label"]
    before = len(hub.requests)
    again = read_hub({"offline": True}, dataset="org/native", templates="{{text}} ||| {{label}}")
    assert again["rows"] == ROWS[:30]
    assert again["version"] is None  # not known offline
    assert len(hub.requests) == before
    gone = read_hub({"offline": True}, dataset="org/gone", templates="a ||| b")["error"]
    assert gone.startswith("Task t: the dataset repository org/gone is not in the cache, and HF_HUB_OFFLINE forbids")


def test_a_data_set_with_a_script_is_read_in_the_hubs_parquet_form(read_hub):
    templates = "{{text}} ||| {{label}}"
    for config in ("plain", None):  # the only one
        assert read_hub(dataset="org/scripted", config=config, templates=templates)["rows"] == ROWS[:20]
    assert read_hub(dataset="org/scripted", config="plain", split="test", templates=templates)["rows"] == ROWS[:3]
    error = read_hub(dataset="org/scripted", config="other", templates=templates)["error"]
    assert (
        "Task t: expected other, split 'train' of the data set org/scripted, found: no other/train in the parquet form"
        in error
    )


def test_p3_is_read_as_it_is_rendered_a_configuration_a_template(read_hub):
    found = read_hub(dataset="bigscience/P3", config="cb_*")
    assert [row["template"] for row in found["rows"]] == ["cb_guess"] * 5 + ["cb_infer"] * 5
    assert found["rows"][0]["inputs_pretokenized"] == "Is 0 odd?\n"
    assert found["firsts"] == [0, 0]  # row n of both is the same row
    columns = {"input": "inputs_pretokenized", "references": "targets_pretokenized", "choices": "answer_choices"}
    assert (found["columns"], found["is_padded"]) == (columns, True)
    assert read_hub(dataset="bigscience/P3", config="cb_*", columns={"input": "x"})["columns"] == {"input": "x"}
    assert {row["template"] for row in read_hub(dataset="bigscience/P3", config="cb_infer")["rows"]} == {"cb_infer"}
    scored = read_hub(dataset="bigscience/P3", config="cb_*_score_eval")
    assert {row["template"] for row in scored["rows"]} == {"cb_guess_score_eval"}
    uneven = read_hub(dataset="bigscience/P3", config="anli_*")
    assert uneven["firsts"] == [0, 5]
    assert "prompts of one source row cannot be told" in uneven["notes"][-1]
    assert "no configuration like 'wic_*'" in read_hub(dataset="bigscience/P3", config="wic_*")["error"]


def test_what_a_parquet_form_cannot_give_is_said(read_hub):
    templates = "{{text}} ||| {{label}}"
    assert read_hub(dataset="org/dotted", templates=templates)["rows"] == ROWS[:4]
    found = read_hub(dataset="org/scripted", config="plain", split="test", templates=templates)
    assert found["notes"][1] == "the Hub's parquet form holds the first part of it alone"
    error = read_hub(dataset="org/unconverted", templates=templates)["error"]
    assert "a script, which is not run, and no parquet form of it. Download the data, and use `files`" in error
    error = read_hub(dataset="org/scripted", config="plain", revision="main", templates=templates)["error"]
    assert "its parquet form has no revision main" in error
    pattern = read_hub(dataset="org/scripted", config="p*", templates=templates)["error"]
    assert "a pattern of configurations (p*), which is for rows that are examples already" in pattern


def test_a_data_set_that_cannot_be_had_says_why_and_what_to_do(read_hub):
    gone = read_hub(dataset="org/gone", templates="a ||| b")["error"]
    assert gone.startswith("Task t: There is no dataset repository org/gone at")
    gated = read_hub(dataset="org/gated", templates="a ||| b")["error"]
    assert gated.startswith("Task t: the dataset repository org/gated is gated: its owners decide who reads it. Ask")
    split = read_hub(dataset="org/native", split="nothing", templates="a ||| b")["error"]
    assert "expected split 'nothing' of the data set org/native, found: Unknown split" in split
    nobody = read_hub({"HF_ENDPOINT": "http://127.0.0.1:9"}, dataset="org/native", templates="a ||| b")
    assert nobody["error"].startswith(
        "Task t: No connection to http://127.0.0.1:9 for the dataset repository org/native"
    )
