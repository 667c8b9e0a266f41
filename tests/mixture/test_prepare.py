import json
import os
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset
from forks import fork
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.multiprocessing import ProcessExitedException

from recross_hf import Decontaminator, MixtureArguments, TaskSource, load_examples, prepare_mixture
from recross_hf.core.hashing import spread
from recross_hf.data.schema import EXAMPLE_FEATURES
from recross_hf.mixture.decontamination import ContaminationError
from recross_hf.mixture.deduplication import DigestSet
from recross_hf.mixture.shards import ExampleShards
from recross_hf.mixture.sources import SourceError
from recross_hf.mixture.targets import check_splits, render_targets
from recross_hf.mixture.task import templates_by_rows
from recross_hf.mixture.trial import try_out

LABELS = ("no", "maybe", "yes")
TEMPLATES = """
dataset: weather
templates:
  a: {name: follows, jinja: "{{premise}} So {{hypothesis}}? ||| {{answer_choices[label]}}", answer_choices: "no ||| maybe ||| yes",
      metadata: {original_task: true, choices_in_prompt: false, metrics: [Accuracy]}}
  b: {name: says, jinja: "Does {{premise}} say {{hypothesis}}? ||| {{answer_choices[label]}}", answer_choices: "no ||| maybe ||| yes",
      metadata: {original_task: true, choices_in_prompt: false, metrics: [Accuracy]}}
  c: {name: only yes, jinja: "{% if label == 2 %}{{premise}} So what? ||| {{hypothesis}}{% endif %}",
      metadata: {original_task: false, choices_in_prompt: false, metrics: [BLEU]}}
"""


def rows(number, prefix="Drop"):
    return [
        {"premise": f"{prefix} {n} falls.", "hypothesis": f"it is wet number {n}", "label": n % 3}
        for n in range(number)
    ]


@pytest.fixture
def templates(tmp_path):
    (tmp_path / "templates" / "weather").mkdir(parents=True)
    (tmp_path / "templates" / "weather" / "templates.yaml").write_text(TEMPLATES)
    return tmp_path / "templates"


@pytest.fixture
def weather(tmp_path):
    Dataset.from_list(rows(300)).to_parquet(tmp_path / "weather.parquet")
    return TaskSource("weather", files=str(tmp_path / "weather.parquet"), templates="weather")


def prepared(output_dir, task="weather", split="train"):
    return load_examples(output_dir / task / f"{split}-*.parquet")


def source_rows(examples):
    return {identity.rpartition("#")[2] for identity in examples["id"][:]}


# ---- what comes out --------------------------------------------------------------------------------------------------


def test_each_row_is_rendered_by_several_templates_and_no_row_is_on_both_sides(weather, templates, tmp_path):
    reports = prepare_mixture([weather], tmp_path / "out", template_folder=templates)
    train, dev = prepared(tmp_path / "out"), prepared(tmp_path / "out", split="dev")
    # 300 rows: a tenth for dev, by one template each; of the others 180 have two templates that suit, 90 have three.
    assert len(dev) == 30
    assert not source_rows(train) & source_rows(dev)
    assert len(source_rows(train)) == 270
    by_row = Counter(identity.rpartition("#")[2] for identity in train["id"][:])
    assert all(by_row[str(n)] == (3 if n % 3 == 2 else 2) for n in range(300) if str(n) in by_row)
    row = next(row for row in train if row["template"] == "follows")
    number = int(row["id"].rpartition("#")[2])
    assert row == {
        "id": f"weather|train|follows|#{number}",
        "task": "weather",
        "template": "follows",
        "input": f"Drop {number} falls. So it is wet number {number}?",
        "references": [LABELS[number % 3]],
        "choices": list(LABELS),
    }
    report = reports["weather"]
    assert (report["rows"], report["train"], report["dev"]) == (300, len(train), 30)
    assert report["templates_per_row"] == 3
    assert report["templates"] == dict(sorted(Counter(train["template"][:] + dev["template"][:]).items()))
    assert report["dropped"]["rendered to nothing"] >= 180


def test_a_cap_is_reached_where_rows_suffice_and_never_exceeded(weather, templates, tmp_path):
    def number(name, **settings):
        args = MixtureArguments(max_dev_examples_per_task=10, **settings)
        prepare_mixture([weather], tmp_path / name, args, template_folder=templates)
        return len(prepared(tmp_path / name)), len(source_rows(prepared(tmp_path / name)))

    assert number("one", max_examples_per_task=100, templates_per_example=1) == (100, 100)
    examples, some = number("three", max_examples_per_task=100, templates_per_example=3)
    assert examples == 100
    assert 40 <= some <= 50  # not the 34 that three a row would need: a third template suits a third of the rows
    assert number("all", max_examples_per_task=10_000, templates_per_example=2)[0] == 580


def test_the_same_seed_gives_the_same_data_whatever_the_number_of_processes(weather, templates, tmp_path):
    Dataset.from_list(rows(6_000)).to_parquet(weather.files)  # six batches
    args = MixtureArguments(max_examples_per_task=5_000, shard_size=2_000, templates_per_example=1)
    for name, num_proc in (("one", 1), ("two", 2)):
        prepare_mixture([weather], tmp_path / name, args, template_folder=templates, num_proc=num_proc)
    files = sorted(path.name for path in (tmp_path / "one" / "weather").iterdir())
    shards = [f"train-{number:05d}-of-00003.parquet" for number in range(3)]
    assert files == ["dev-00000-of-00001.parquet", "task.json", *shards]
    for name in files:
        assert (tmp_path / "one" / "weather" / name).read_bytes() == (tmp_path / "two" / "weather" / name).read_bytes()
    other = MixtureArguments(max_examples_per_task=5_000, templates_per_example=1, seed=1)
    prepare_mixture([weather], tmp_path / "other", other, template_folder=templates)
    assert prepared(tmp_path / "other")["id"][:] != prepared(tmp_path / "one")["id"][:]


def test_rows_and_examples_that_repeat_are_left_out(templates, tmp_path):
    Dataset.from_list(rows(100) * 3).to_parquet(tmp_path / "weather.parquet")
    source = TaskSource("weather", files=str(tmp_path / "weather.parquet"), templates="weather")
    args = MixtureArguments(templates_per_example=1)
    report = prepare_mixture([source], tmp_path / "out", args, template_folder=templates)["weather"]
    train, dev = prepared(tmp_path / "out"), prepared(tmp_path / "out", split="dev")
    hypotheses = [
        row["input"].split("number ")[-1].split("?")[0] for row in (*train, *dev) if "number" in row["input"]
    ]
    assert len(hypotheses) == len(set(hypotheses))
    assert len(train) + len(dev) == 100
    assert report["dropped"]["of a repeated row"] == 200


def test_examples_that_repeat_are_left_out_where_rows_differ_in_what_a_template_does_not_show(weather, tmp_path):
    source = TaskSource("t", files=weather.files, templates="Label {{label}}? ||| {{label}}")
    args = MixtureArguments(max_dev_examples_per_task=0)
    report = prepare_mixture([source], tmp_path / "out", args)["t"]
    assert report["train"] == 3
    assert report["dropped"] == {"of a repeated row": 297}
    source = TaskSource("t", files=weather.files, templates="Length {{premise | length}}? ||| {{label}}")
    report = prepare_mixture([source], tmp_path / "other", args)["t"]
    assert report["train"] == 9  # three lengths, three labels
    assert report["dropped"] == {"repeated": 291}


def test_rows_that_differ_in_a_number_alone_are_one_row(templates, tmp_path):
    """As in data sets with a column `idx`: else each of them could be in both splits, put differently."""
    numbered = [row | {"idx": n} for n, row in enumerate(rows(100) * 3)]
    Dataset.from_list(numbered).to_parquet(tmp_path / "weather.parquet")
    source = TaskSource("weather", files=str(tmp_path / "weather.parquet"), templates="weather")
    prepare_mixture([source], tmp_path / "out", template_folder=templates)
    train, dev = prepared(tmp_path / "out"), prepared(tmp_path / "out", split="dev")
    assert not {int(n) % 100 for n in source_rows(train)} & {int(n) % 100 for n in source_rows(dev)}
    assert len(dev) > 20


def test_what_is_kept_does_not_depend_on_where_it_is_in_the_data(tmp_path):
    """A template that suits a tenth of the rows needs several passes, of which none may lose the end."""
    some = [{"text": f"text {n}", "label": n % 10} for n in range(20_000)]
    Dataset.from_list(some).to_parquet(tmp_path / "t.parquet")
    source = TaskSource(
        "t", files=str(tmp_path / "t.parquet"), templates="{% if not label %}{{text}} ||| yes{% endif %}"
    )
    counts = np.zeros(10)
    for seed in range(3):
        args = MixtureArguments(max_examples_per_task=500, max_dev_examples_per_task=0, seed=seed)
        prepare_mixture([source], tmp_path / str(seed), args)
        examples = prepared(tmp_path / str(seed), "t")
        assert 495 <= len(examples) <= 500
        counts += np.histogram([int(number) for number in source_rows(examples)], bins=10, range=(0, 20_000))[0]
    assert counts.min() > 100  # of 150 on average, with a standard deviation of 12


def test_ids_are_unique_over_tasks_and_say_the_source_where_they_can(tmp_path):
    for name in ("a", "b"):
        some = [{"id": n, "input": f"{name} {n}", "references": "x"} for n in range(20)]
        Dataset.from_list(some).to_parquet(tmp_path / f"{name}.parquet")
    sources = [TaskSource(name, files=str(tmp_path / f"{name}.parquet")) for name in ("a", "b")]
    prepare_mixture(sources, tmp_path / "out")
    assert "a|train||#3" in load_examples(tmp_path / "out" / "*" / "*.parquet")["id"][:]
    twice = TaskSource("twice", files=str(tmp_path / "*.parquet"))
    with pytest.raises(
        SourceError, match=r"Task twice: expected unique ids, found more of 'twice\|train\|\|#.*Map `id`"
    ):
        prepare_mixture([twice], tmp_path / "out")
    # An id of the target is found as the data have it.
    targets = Decontaminator.of([target(["something"], ["3"])])
    reports = prepare_mixture(sources, tmp_path / "clean", targets=targets)
    assert reports["a"]["overlap"] == {"id with target": 1}


def test_rows_that_are_examples_already_keep_their_source_on_one_side(tmp_path):
    examples = [
        {"example_id": f"t|train|{name}|#{n}", "template": name, "text": f"{name} {n}?", "answers": [f"a{n}", "b"]}
        for n in range(60)
        for name in ("one", "two", "three")
    ]
    Dataset.from_list(examples).to_parquet(tmp_path / "t.parquet")
    columns = {"id": "example_id", "input": "text", "references": "answers"}
    source = TaskSource("t", files=str(tmp_path / "t.parquet"), columns=columns)
    report = prepare_mixture([source], tmp_path / "out")["t"]
    train, dev = prepared(tmp_path / "out", "t"), prepared(tmp_path / "out", "t", "dev")
    assert (report["train"], report["dev"]) == (len(train), len(dev))
    assert len(train) + len(dev) == 180
    assert 15 <= len(dev) <= 21  # a tenth of the rows, whole sources
    assert not source_rows(train) & source_rows(dev)
    assert train[0]["references"][1] == "b"
    assert train[0]["template"] in ("one", "two", "three")
    assert report["templates_per_row"] is None


def test_a_table_without_ids_gets_them(tmp_path):
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps({"q": f"q{n}", "a": f"a{n}"}) + "\n" for n in range(5)))
    source = TaskSource("faq", files=str(tmp_path / "faq.jsonl"), columns={"input": "q", "references": "a"})
    prepare_mixture([source], tmp_path / "out")
    examples = prepared(tmp_path / "out", "faq")
    assert sorted(examples["id"][:]) == [f"faq|train||#{n}" for n in range(5)]
    assert examples[0]["references"] == [examples[0]["input"].replace("q", "a")]


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, 10), (5_000, 10), (5_001, 7), (10_000, 7), (50_000, 5), (50_001, 1)]
)
def test_small_tasks_are_rendered_by_more_templates(rows, expected):
    assert templates_by_rows(rows) == expected


def test_only_templates_of_the_kind_that_is_asked_for(weather, templates, tmp_path):
    for name in ("exact_match_only", "original_task_only"):
        args = MixtureArguments(**{name: True})
        report = prepare_mixture([weather], tmp_path / name, args, template_folder=templates)["weather"]
        assert set(report["templates"]) == {"follows", "says"}


def test_the_folder_opens_as_a_data_set_and_its_card_says_all(weather, templates, tmp_path):
    other = TaskSource("other", files=weather.files, templates="{{premise}}? ||| {{label}}", license="mit")
    targets = Decontaminator.of([target(["Drop 7 falls.?"])])
    prepare_mixture([weather, other], tmp_path / "out", targets=targets, template_folder=templates)
    opened = load_dataset(str(tmp_path / "out"))
    assert set(opened) == {"train", "dev"}
    assert opened["train"].features == EXAMPLE_FEATURES
    assert set(opened["train"]["task"][:]) == {"weather", "other"}
    assert set(load_dataset(str(tmp_path / "out"), "other", split="dev")["task"][:]) == {"other"}
    text = DatasetCard.load(tmp_path / "out" / "README.md").text
    assert "# 2 upstream tasks" in text
    assert "| other | " in text
    assert "| mit | 300 | 1 | 269 | 30 |" in text or "| mit | 300 | 1 | 270 | 29 |" in text
    assert "| other | exact with target | 1 |" in text
    assert str(tmp_path) not in text  # no reader has that folder
    everything = json.loads((tmp_path / "out" / "mixture.json").read_text())
    assert list(everything) == ["other", "weather"]


# ---- contamination ---------------------------------------------------------------------------------------------------


def target(inputs, ids=None):
    columns = {
        "id": ids or [f"cb|validation|plain|#{n}" for n in range(len(inputs))],
        "task": ["target"] * len(inputs),
        "template": [""] * len(inputs),
        "input": inputs,
        "references": [["yes"]] * len(inputs),
        "choices": [[]] * len(inputs),
    }
    return Dataset.from_dict(columns, features=EXAMPLE_FEATURES)


def test_what_a_target_holds_is_left_out_counted_and_shown(weather, templates, tmp_path):
    # Of row 4 one prompt, of row 5 the source itself: no prompt of either is kept.
    targets = Decontaminator.of(
        [target(["Drop 4 falls! So: it is wet, number 4?", "other"], ["cb|validation|x|#0", "weather|train|x|#5"])]
    )
    args = MixtureArguments(max_dev_examples_per_task=0)
    report = prepare_mixture([weather], tmp_path / "out", args, targets=targets, template_folder=templates)["weather"]
    train = prepared(tmp_path / "out")
    assert "5" not in source_rows(train)
    assert not source_rows(train) & {"4", "5"}
    assert report["overlap"] == {"exact with target": 2, "id with target": 3}
    assert report["dropped"]["of a row shared with a target"] == 5
    shown = {example["kind"]: example for example in report["overlap_examples"]}
    assert shown["exact"]["target"] == "cb|validation|x|#0"
    assert shown["exact"]["id"] == "weather|train|follows|#4"

    args = MixtureArguments(max_dev_examples_per_task=0, on_overlap="keep")
    kept = prepare_mixture([weather], tmp_path / "kept", args, targets=targets, template_folder=templates)["weather"]
    assert kept["overlap"] == report["overlap"]
    assert kept["train"] == report["train"] + 5
    args = MixtureArguments(on_overlap="fail")
    with pytest.raises(ContaminationError, match=r"weather\|train\|.* shares .* with cb\|.* of the target target"):
        prepare_mixture([weather], tmp_path / "fatal", args, targets=targets, template_folder=templates)
    assert not list((tmp_path / "fatal").iterdir())


def test_targets_are_found_in_other_processes_too(weather, templates, tmp_path):
    targets = Decontaminator.of([target(["Drop 4 falls. So it is wet number 4?"])])
    arguments = {"targets": targets, "template_folder": templates, "num_proc": 2}
    assert prepare_mixture([weather], tmp_path / "out", **arguments)["weather"]["overlap"] == {"exact with target": 2}


def test_targets_are_rendered_and_never_read_from_the_same_split(weather, templates):
    (rendered,) = render_targets([weather], template_folder=templates)
    assert len(rendered) == 300
    assert rendered.features == EXAMPLE_FEATURES
    with pytest.raises(ContaminationError, match="is the test set of the target weather"):
        check_splits([weather], [weather])
    tested = [TaskSource("b", dataset="x/y", config="c", split="test")]
    check_splits([TaskSource("a", dataset="x/y", config="c", split="train")], tested)
    check_splits([TaskSource("a", dataset="x/y", config="d", split="test")], tested)
    for split, config in (("test[:50%]", "c"), ("train+test", "c"), ("test", None)):
        with pytest.raises(ContaminationError, match="Task a reads x/y"):
            check_splits([TaskSource("a", dataset="x/y", config=config, split=split)], tested)


def test_a_target_that_cannot_be_had_is_an_error_or_loudly_passed_over(weather, templates, tmp_path, caplog):
    gone = TaskSource("gone", files=str(tmp_path / "gone.parquet"), templates="weather")
    with pytest.raises(SourceError, match="Task gone"):
        list(render_targets([gone, weather], template_folder=templates))
    rendered = list(render_targets([gone, weather], template_folder=templates, skip_failed_tasks=True))
    assert [len(examples) for examples in rendered] == [300]
    assert "NOT compared with the target gone" in caplog.text


# ---- runs that end early, and runs again -----------------------------------------------------------------------------


def test_finished_tasks_are_kept_and_a_rerun_does_the_rest(weather, templates, tmp_path, monkeypatch):
    broken = TaskSource("broken", files=str(tmp_path / "none.parquet"), templates="weather")
    with pytest.raises(SourceError, match="Task broken: No file at"):
        prepare_mixture([weather, broken], tmp_path / "out", template_folder=templates)
    before = (tmp_path / "out" / "weather" / "train-00000-of-00001.parquet").stat().st_mtime_ns
    Dataset.from_list(rows(50, "Flake")).to_parquet(tmp_path / "none.parquet")
    reports = prepare_mixture([weather, broken], tmp_path / "out", template_folder=templates)
    assert (tmp_path / "out" / "weather" / "train-00000-of-00001.parquet").stat().st_mtime_ns == before
    assert set(reports) == {"weather", "broken"}
    prepare_mixture([weather, broken], tmp_path / "new", template_folder=templates)
    for path in (tmp_path / "out").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "new" / path.relative_to(tmp_path / "out")).read_bytes()


def test_other_settings_or_other_data_in_the_same_folder_are_refused(weather, templates, tmp_path):
    prepare_mixture([weather], tmp_path / "out", template_folder=templates)
    with pytest.raises(ValueError, match=r"was prepared with other settings or data \(max_examples_per_task\)"):
        prepare_mixture(
            [weather], tmp_path / "out", MixtureArguments(max_examples_per_task=9), template_folder=templates
        )
    (templates / "weather" / "templates.yaml").write_text(TEMPLATES.replace("So what", "And now"))
    with pytest.raises(ValueError, match=r"other settings or data \(templates\)"):
        prepare_mixture([weather], tmp_path / "out", template_folder=templates)
    (templates / "weather" / "templates.yaml").write_text(TEMPLATES)
    Dataset.from_list(rows(299)).to_parquet(weather.files)
    with pytest.raises(ValueError, match=r"other settings or data \(version\)"):
        prepare_mixture([weather], tmp_path / "out", template_folder=templates)
    (tmp_path / "mine" / "weather").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"found one without: it was not made here"):
        prepare_mixture([weather], tmp_path / "mine", template_folder=templates)


def killed_after_the_first_shard(rank, files, folder, templates):
    write = ExampleShards.write

    def write_once(self, table):
        write(self, table)
        if self.split == "train":
            os._exit(9)

    ExampleShards.write = write_once
    prepare_mixture([TaskSource("weather", files=files, templates="weather")], folder, template_folder=templates)


def test_a_killed_run_leaves_no_half_of_a_task_and_a_rerun_clears_up(weather, templates, tmp_path):
    with pytest.raises(ProcessExitedException) as killed:
        fork(killed_after_the_first_shard, weather.files, tmp_path / "out", templates)
    assert killed.value.exit_code == 9
    assert [path.name[:8] for path in (tmp_path / "out").iterdir()] == [".weather"]
    prepare_mixture([weather], tmp_path / "out", template_folder=templates)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "mixture.json", "weather"]


def test_a_full_disk_leaves_nothing_behind(weather, templates, tmp_path, monkeypatch):
    def full(self, table):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(OSError, match="No space left"):
            prepare_mixture([weather], tmp_path / "out", template_folder=templates)
    assert not list((tmp_path / "out").iterdir())
    assert prepare_mixture([weather], tmp_path / "out", template_folder=templates)["weather"]["train"]


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_a_template_that_names_an_absent_column_is_left_out_or_with_strict_an_error(weather, templates, tmp_path):
    text = TEMPLATES + '  d: {name: odd, jinja: "{{colour}}? ||| {{label}}"}\n'
    (templates / "weather" / "templates.yaml").write_text(text)
    report = prepare_mixture([weather], tmp_path / "out", template_folder=templates)["weather"]
    problem = "expected the column 'colour', found premise, hypothesis, label"
    assert report["templates_left_out"] == {"odd": problem}
    with pytest.raises(SourceError, match=f"Task weather: template 'odd': {problem}"):
        prepare_mixture([weather], tmp_path / "new", MixtureArguments(strict=True), template_folder=templates)
    (templates / "weather" / "templates.yaml").write_text("templates: {d: " + text.split("d: ")[-1].strip() + "}")
    with pytest.raises(SourceError, match=r"expected a usable template among the 1 of weather, found none \(odd: "):
        prepare_mixture([weather], tmp_path / "new", template_folder=templates)


@pytest.mark.parametrize(
    ("jinja", "failure"),
    [
        ("{{premise}} {{hypothesis.nothing.upper()}} ||| {{label}}", "template 'template' of t: .*row "),
        ("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}{{label}} ||| x", "of t: "),
    ],
)
def test_a_template_that_fails_names_the_task_the_template_and_the_row(weather, tmp_path, jinja, failure):
    source = TaskSource("t", files=weather.files, templates=jinja)
    with pytest.raises(SourceError, match=f"Task t: expected examples from 300 rows .*a template failed.*{failure}"):
        prepare_mixture([source], tmp_path / "out")
    with pytest.raises(SourceError, match=f"Task t: .*{failure}"):
        prepare_mixture([source], tmp_path / "out", MixtureArguments(strict=True))


def test_a_template_that_fails_on_some_rows_leaves_those_out(weather, tmp_path, caplog):
    source = TaskSource("t", files=weather.files, templates="{{premise}} {{['a', 'b'][label].upper()}} ||| {{label}}")
    report = prepare_mixture([source], tmp_path / "out", MixtureArguments(max_dev_examples_per_task=0))["t"]
    assert report["dropped"] == {"a template failed": 100}
    assert report["train"] == 200
    assert "(row " in report["failures"]["template"]
    assert caplog.text.count("Rows that a template fails on are left out") == 1


@pytest.mark.parametrize(
    ("jinja", "error"),
    [
        ("a ||| b ||| {{label}}", "found 2 of it"),
        ("{{premise ||| b", "line 1"),
        ("{% if false %}{{premise}} ||| b{% endif %}", "300 rendered to nothing"),
    ],
)
def test_a_template_of_no_use_is_an_error_that_names_the_task(weather, tmp_path, jinja, error):
    with pytest.raises(SourceError, match=f"Task t: .*{error}"):
        args = MixtureArguments(max_dev_examples_per_task=0)
        prepare_mixture([TaskSource("t", files=weather.files, templates=jinja)], tmp_path / "out", args)


def test_broken_yaml_is_an_error_that_names_the_file(weather, templates, tmp_path):
    (templates / "weather" / "templates.yaml").write_text("templates: {a: [")
    with pytest.raises(SourceError, match=r"Task weather: Expected templates as YAML in .*templates.yaml"):
        prepare_mixture([weather], tmp_path / "out", template_folder=templates)


def test_a_task_that_fails_can_be_passed_over_and_is_reported(weather, templates, tmp_path):
    gone = TaskSource("gone", files=str(tmp_path / "gone.parquet"), templates="weather")
    arguments = {"template_folder": templates, "skip_failed_tasks": True}
    reports = prepare_mixture([gone, weather], tmp_path / "out", **arguments)
    assert "Task gone: No file at" in reports["gone"]["error"]
    assert reports["weather"]["train"]
    assert (
        "| gone | all of it: its data or templates could not be had | |"
        in (tmp_path / "out" / "README.md").read_text()
    )
    # A task that was there before stays.
    os.remove(weather.files)
    reports = prepare_mixture([weather], tmp_path / "out", **arguments)
    assert reports["weather"]["train"]
    assert "# 1 upstream tasks" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"input": ["a", "b"], "references": "a"}, "Task t: expected one text in 'input', found 2 in row 0"),
        ({"input": "a", "references": ["", None, " "]}, "found none .1 without an answer"),
        ({"input": "half a \ud83d", "references": "a"}, "found none .1 with characters that are none"),
        ({"input": 3, "references": "a"}, "Task t: expected text in 'input', found int in row 0"),
        ({"input": "a", "references": [1]}, "Task t: expected text in 'references', found int in row 0"),
        ({"input": "a"}, r"Task t: expected the column 'references' \(for 'references'\), found input in row 0"),
        ({"input": "a", "references": []}, "found none .1 without an answer"),
        ({"input": " ", "references": "a"}, "found none .1 without an input"),
        ({"input": None, "references": "a"}, "found none .1 without an input"),
    ],
)
def test_columns_of_the_wrong_type_are_an_error_that_names_task_and_row(tmp_path, row, error):
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(SourceError, match=error):
        prepare_mixture([TaskSource("t", files=str(tmp_path / "t.jsonl"))], tmp_path / "out")


def test_an_empty_table_is_an_error(tmp_path):
    (tmp_path / "t.csv").write_text("input,references\n")
    with pytest.raises(SourceError, match=r"Task t: expected rows in .*t.csv, found none"):
        prepare_mixture([TaskSource("t", files=str(tmp_path / "t.csv"))], tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_examples_per_task": 0}, "`max_examples_per_task` must be at least 1, found 0"),
        ({"templates_per_example": 0}, "`templates_per_example` must be at least 1, found 0"),
        ({"max_dev_examples_per_task": -1}, "`max_dev_examples_per_task` must not be negative, found -1"),
        ({"ngram_size": 1}, "`ngram_size` must be at least 2 words, found 1"),
        ({"on_overlap": "ignore"}, "`on_overlap` must be 'drop', 'keep' or 'fail', found 'ignore'"),
    ],
)
def test_settings_that_make_no_sense_say_so(settings, error):
    with pytest.raises(ValueError, match=error):
        MixtureArguments(**settings)


def test_a_folder_holds_what_one_set_of_settings_made(weather, templates, tmp_path):
    """The card says of all of it what it was compared with."""
    prepare_mixture([weather], tmp_path / "out", template_folder=templates)
    other = TaskSource("other", files=weather.files, templates="{{premise}}? ||| {{label}}")
    with pytest.raises(ValueError, match=r"weather in .* was prepared with other settings or data \(targets\)"):
        prepare_mixture([other], tmp_path / "out", targets=Decontaminator.of([target(["some text"])]))
    with pytest.raises(ValueError, match="with the n-grams of the settings, 13 words, found 5"):
        prepare_mixture([other], tmp_path / "out", targets=Decontaminator(5))
    with pytest.raises(ValueError, match="Expected each task once, found more of other"):
        prepare_mixture([other, other], tmp_path / "out")


def test_a_file_that_is_not_what_its_name_says_names_the_task(tmp_path):
    (tmp_path / "t.csv").write_bytes("input,references\nd\xe9j\xe0 vu,a\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"Task t: Expected UTF-8 in .*t.csv, found the byte 0xe9 in line 2"):
        prepare_mixture([TaskSource("t", files=str(tmp_path / "t.csv"))], tmp_path / "out")


def test_a_template_that_fails_on_the_first_rows_is_tried_on_the_others(tmp_path):
    some = [{"text": f"text {n}", "label": 9 if n < 50 else n % 2} for n in range(300)]
    Dataset.from_list(some).to_parquet(tmp_path / "t.parquet")
    source = TaskSource(
        "t", files=str(tmp_path / "t.parquet"), templates="{{text}} {{['a', 'b'][label].upper()}} ||| x"
    )
    report = prepare_mixture([source], tmp_path / "out", MixtureArguments(max_dev_examples_per_task=0))["t"]
    assert (report["train"], report["dropped"]) == (250, {"a template failed": 50})


def test_a_task_whose_first_rows_give_nothing_is_tried_on_the_next_ones(tmp_path):
    some = [{"text": f"text {n}", "answer": "" if n < 300 else "1"} for n in range(1000)]  # less than a batch
    Dataset.from_list(some).to_parquet(tmp_path / "t.parquet")
    source = TaskSource("t", files=str(tmp_path / "t.parquet"), templates="{{text}} ||| {{answer}}")
    trial = try_out(source, MixtureArguments(max_dev_examples_per_task=0), num_rows=200)
    assert trial.num_tried == 100  # of the second 200 rows
    assert trial.num_examples == 250  # a quarter of 1,000, as of the 400 rows that were read
    Dataset.from_list(some[:300]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="Task t: expected examples of its 300 rows, found none"):
        try_out(source, MixtureArguments())


def test_processes_are_counted_from_one(weather, tmp_path):
    with pytest.raises(ValueError, match="Expected `num_proc` to be at least 1, found 0"):
        prepare_mixture([weather], tmp_path / "out", num_proc=0)


# ---- the arithmetic --------------------------------------------------------------------------------------------------

digests = arrays.arrays(np.uint64, st.integers(0, 12), elements=st.integers(0, 9))


@given(st.lists(digests, max_size=12))
def test_digests_are_new_once(batches):
    seen, known = set(), DigestSet()
    for batch in batches:
        expected = []
        for digest in batch.tolist():
            expected.append(digest not in seen)
            seen.add(digest)
        assert known.add(batch).tolist() == expected
    assert len(known) == len(seen)


@given(arrays.arrays(np.uint64, 200, elements=st.integers(0, 2**64 - 1), unique=True))
def test_no_two_numbers_are_spread_into_one(values):
    assert len(np.unique(spread(values))) == len(values)


def test_a_folder_of_templates_that_is_none_is_not_ignored(tmp_path):
    (tmp_path / "task.jsonl").write_text('{"input": "a", "references": ["b"]}\n')
    sources = [TaskSource("task", files=str(tmp_path / "task.jsonl"))]
    with pytest.raises(NotADirectoryError, match=r"a folder of templates, .*found none at .*task\.jsonl"):
        prepare_mixture(sources, tmp_path / "out", template_folder=tmp_path / "task.jsonl")
    assert not (tmp_path / "out").exists()
