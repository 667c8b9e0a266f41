from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

import recross_hf
from recross_hf.mixture.template_files import load_templates, select_templates

TASKS = yaml.safe_load((Path(recross_hf.__file__).parent / "tasks" / "recross.yaml").read_text(encoding="utf-8"))
ALL = [*TASKS["upstream"], *TASKS["targets"]]
WITH_TEMPLATES = [entry for entry in ALL if "templates" in entry]


def test_the_papers_tasks_are_all_there():
    assert list(TASKS) == ["upstream", "targets"]
    assert len(TASKS["upstream"]) == 36
    assert len(TASKS["targets"]) == 10 + 5
    assert sum("columns" in entry for entry in TASKS["targets"]) == 5
    assert len({entry["task"] for entry in ALL}) == len(ALL)
    # No data set is on both sides.
    assert not {e["dataset"] for e in TASKS["upstream"]} & {e["dataset"] for e in TASKS["targets"]}


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry["task"])
def test_a_task_says_where_its_rows_and_texts_come_from(entry):
    keys = {"task", "dataset", "split"} | ({"query_split"} if entry in TASKS["targets"] else set())
    assert keys <= set(entry) <= keys | {"config", "templates", "columns"}
    assert ("templates" in entry) != ("columns" in entry)
    assert all(isinstance(value, str) and value for key, value in entry.items() if key != "columns")
    assert entry["dataset"].count("/") == 1
    if "columns" in entry:
        assert set(entry["columns"]) == {"input", "references", "choices"}


def test_the_templates_of_every_task_are_read(promptsource):
    judged = {}
    num_templates = 0
    for entry in WITH_TEMPLATES:
        templates = load_templates(entry["templates"], folder=promptsource)
        assert templates
        for template in templates:
            template.check()
        judged[entry["task"]] = len(list(select_templates(templates)))
        num_templates += len(templates)
    assert num_templates == 290 + 103
    assert sum(judged.values()) == 200 + 88
    # Summaries and other free texts: no template of these has answers that an exact match can judge.
    assert {task for task, number in judged.items() if not number} == {
        *("cnn_dailymail-3.0.0", "common_gen", "gigaword", "multi_news", "samsum", "wiki_bio", "xsum")
    }


def test_the_authors_renderings_are_of_these_tasks_splits_and_templates(promptsource, real_data):
    for kind, file in (("upstream", "train"), ("targets", "test")):
        folder = real_data / kind.removesuffix("s")
        stored = {path.name for path in folder.iterdir()}
        named = {entry["task"]: entry for entry in TASKS[kind]}
        # Two upstream tasks are not public.
        assert set(named) - stored == ({"wiki_hop-original", "multi_news"} if kind == "upstream" else set())
        assert stored <= set(named)
        for task in sorted(stored):
            entry = named[task]
            rows = pq.read_table(folder / task / f"{file}.parquet", columns=["template", "split"])
            if "columns" in entry:
                continue
            names = {template.name for template in load_templates(entry["templates"], folder=promptsource)}
            assert set(rows["template"].to_pylist()) <= names
            assert set(rows["split"].to_pylist()) == {entry["split"]}
            if kind == "targets":
                queries = pq.read_table(folder / task / "query-0.parquet", columns=["split"])
                assert set(queries["split"].to_pylist()) == {entry["query_split"]}
