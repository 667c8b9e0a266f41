"""The flags of a launcher, with submitit and without it."""

import re
import sys

import pytest
from example_scripts import recross

from recross_hf.launching.arguments import LauncherArguments
from recross_hf.launching.launcher import launch


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_jobs": 0}, "Expected --num_jobs of at least 1, found 0"),
        ({"gpus_per_node": -1}, "Expected --gpus_per_node of at least 0, found -1"),
        ({"max_retries": -1}, "Expected --max_retries of at least 0, found -1"),
        ({"mem_gb": 0}, r"Expected --mem_gb of at least 0\.001, found 0"),
        ({"launcher": "local", "mem_gb": 4}, "Expected --mem_gb beside --launcher slurm, found it beside local"),
        ({"launcher": "local", "slurm_partition": "x"}, "Expected --slurm_partition beside --launcher slurm"),
    ],
)
def test_what_no_launcher_can_do_is_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        LauncherArguments(**arguments)


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("mine -o out --num_jobs 3", "Expected --launcher local or slurm beside --num_jobs, found none"),
        ("benchmark -o out --timeout_min 3", "Expected --launcher local or slurm beside --timeout_min, found none"),
        ("benchmark -o out --launcher local --dry_run", "Expected --dry_run without --launcher, found both"),
        ("mine -o out --launcher sge", "Expected one of 'none', 'local', 'slurm' as --launcher, found 'sge'"),
        ("mine -o out --launcher local --mem_gb 3", "Expected --mem_gb beside --launcher slurm"),
        ("adapt x.txt --launcher local", "--launcher needs --query_files, the tasks that jobs share"),
        ("adapt --query_files x.txt --eval_file y.csv", "Expected --eval_file of one task, with query_file, found it"),
        (
            "adapt --query_files none-*.txt",
            "Expected a file of inputs for each task as --query_files, found none at none-",
        ),
        (
            "adapt --query_files a/x.txt b/x.txt",
            "Expected --query_files of different names, .* found a/x.txt, b/x.txt",
        ),
        ("adapt --query_files a/jobs.txt", "none of them locks or jobs, found a/jobs.txt. Rename them"),
        ("mine -o out --launcher local --hub_token hf_x", "found --hub_token"),  # it has none
        (
            "benchmark -o out --launcher local --hub_token hf_x",
            "Expected --launcher without --hub_token, which would stand in the files of the jobs, found both: set HF_TOKEN",
        ),
        ("demo --query_files x.txt", "Expected the starter and one of its tasks, found --query_files"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_in_a_line(command, match, tmp_path):
    for name in ("a/x.txt", "b/x.txt", "a/jobs.txt", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Is it red?\n")
    code, _, told = recross(tmp_path, *command.split())
    assert code == 2
    (line,) = told.splitlines()
    assert re.search(match, line), line
    assert not (tmp_path / "out").exists()


def test_a_launcher_within_accelerate_launch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    code, _, told = recross(tmp_path, "mine", "-o", "out", "--launcher", "local")
    assert (code, "Expected --launcher without `accelerate launch`, found both" in told) == (2, True)


def test_the_extra_is_named_where_submitit_is_absent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"--launcher local needs submitit: pip install 'recross_hf\[cluster\]'\."):
        launch(["--version"], tmp_path / "out", LauncherArguments("local"))
    code, _, told = recross(tmp_path, "mine", "-o", "out", "--launcher", "local")
    assert code == 2
    assert told.splitlines() == ["recross mine: --launcher local needs submitit: pip install 'recross_hf[cluster]'."]


@pytest.mark.parametrize("command", ["mine", "benchmark"])
def test_a_folder_of_something_else_is_refused_before_there_are_jobs(command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recross.json").write_text("{}")
    code, _, told = recross(tmp_path, command, "-o", "out", "--launcher", "local")
    assert (code, "found a pipeline (recross.json) in" in told) == (2, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["recross.json"]


def test_a_cell_that_no_job_has_finished_is_missed(tmp_path, monkeypatch):
    monkeypatch.setattr("recross_hf.cli.jobs.launch", lambda *_: 0)
    words = ("benchmark", "--num_test", "4", "--methods", "none", "-o", "out", "--launcher", "local")
    code, _, told = recross(tmp_path, *words)
    assert code == 2
    assert re.search(
        r"Expected each cell in out, for a job came to its end, found 7 of 7 missing, such as out/cells/", told
    )
