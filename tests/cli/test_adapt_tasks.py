"""`recross adapt --query_files`: a folder for each task, what is there is kept, and what fails holds nothing up."""

import json
import shutil

import pytest
from example_scripts import recross

from recross_hf import ReCrossPipeline

FAST = ("--num_retrieved", "8", "--max_steps", "1", "--gate", "off", "--max_target_length", "4", "--quiet")
WORDS = ("adapt", "--query_files", "tasks/*.txt", "-o", "adapted")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder in which a command was given: one of the two tasks has no inputs yet."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "colours.txt").write_text("\n")
    (folder / "tasks" / "tickets.txt").write_text("My parcel is lost.\nMy bill is wrong.\n")
    return folder, recross(folder, *WORDS, *FAST)


@pytest.fixture
def folder(first, tmp_path):
    return shutil.copytree(first[0], tmp_path / "copy")


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_each_task_has_a_pipeline_of_its_own_and_one_that_fails_holds_nothing_up(first):
    folder, (code, printed, told) = first
    assert code == 1
    assert "1 of 2 tasks are adapted to, each in a folder of its own in adapted/." in printed
    assert told.splitlines() == ["Failed: colours: tasks/colours.txt: Expected at least one example, found none."]
    assert recross(folder, "adapt", "tasks/tickets.txt", "-o", "alone", *FAST)[0] == 0
    for name in ("model.safetensors", "retrieved.parquet"):
        assert (folder / "alone" / name).read_bytes() == (folder / "adapted" / "tickets" / name).read_bytes()
    assert (folder / "adapted" / "tickets" / "recross.json").is_file()


def test_the_same_command_goes_on_and_tasks_may_be_mended_and_added(folder):
    before = times(folder / "adapted" / "tickets")
    (folder / "tasks" / "colours.txt").write_text("Is it red?\n")
    (folder / "tasks" / "moods.txt").write_text("I am glad.\n")
    code, printed, told = recross(folder, *WORDS, *FAST)
    assert (code, "3 of 3 tasks are adapted to" in printed) == (0, True), told
    assert times(folder / "adapted" / "tickets") == before
    assert all((folder / "adapted" / name / "recross.json").is_file() for name in ("moods", "colours"))


def test_other_settings_and_other_inputs_are_refused(folder):
    code, _, told = recross(folder, *WORDS, *FAST, "--seed", "3")
    assert (code, "Expected the settings of the adaptations in adapted, found `seed` 3 in place of None" in told) == (
        2,
        True,
    )
    (folder / "tasks" / "tickets.txt").write_text("Something else.\n")
    code, _, told = recross(folder, *WORDS, *FAST)
    assert (code, "found `queries.tickets`" in told) == (2, True)
    code, _, told = recross(folder, "adapt", "tasks/tickets.txt", "-o", "adapted", *FAST)
    assert (code, "found adaptations to many tasks (adaptations.json)" in told) == (2, True)


def test_a_pipeline_that_is_not_there_is_told_once_and_pins_nothing(folder):
    code, printed, told = recross(
        folder, "adapt", "--query_files", "tasks/*.txt", "-o", "new", "--pipeline", "no/t/here"
    )
    assert (code, printed) == (2, "")
    assert told.startswith("recross adapt: Expected the folder of a pipeline, found none at no/t/here.")
    assert not (folder / "new").exists()


def test_another_pipeline_under_the_same_name_is_refused(folder):
    pipeline = ReCrossPipeline.from_pretrained()
    pipeline.save_pretrained(folder / "pipeline")
    words = ("adapt", "--query_files", "tasks/*.txt", "-o", "of-mine", "--pipeline", "pipeline", *FAST)
    assert recross(folder, *words)[0] == 1  # colours has no inputs yet
    pipeline.adaptation = pipeline.adaptation | {"learning_rate": 0.5}
    pipeline.save_pretrained(folder / "pipeline")
    (folder / "tasks" / "colours.txt").write_text("Is it red?\n")
    code, _, told = recross(folder, *words)
    assert (code, "Expected the settings of the adaptations in of-mine, found `pipeline_parts`" in told) == (2, True)
    settings = folder / "of-mine" / "adaptations.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({name: content[name] for name in ("settings", "queries")}))  # an earlier version's
    assert recross(folder, *words)[0] == 0


def test_a_token_is_not_written_down(folder):
    code, _, told = recross(folder, *WORDS, *FAST, "--hub_token", "hf_secret")
    assert (code, "Expected --hub_token of one task" in told) == (2, True)
    assert not [path for path in folder.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()]
