"""Jobs of submitit on this machine, and on a slurm whose commands are a few lines of shell."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from example_scripts import recross

from recross_hf.launching import executors, launcher
from recross_hf.launching.arguments import LauncherArguments
from recross_hf.launching.job import Command
from recross_hf.launching.launcher import JobError, launch, outcome_of

submitit = pytest.importorskip("submitit", reason="the extra [cluster] is not installed")

MINE = (
    *("--num_query_sets", "6", "--num_candidates", "16", "--group_size", "4", "--num_rounds", "2"),
    *("--num_labelled", "4"),
)
ADAPT = ("--query_files", "tasks/*.txt", "--num_retrieved", "8", "--max_steps", "2", "--gate", "off")
LOCAL = ("--launcher", "local", "--num_jobs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the inputs of tasks, and what commands make without a launcher."""
    folder = tmp_path_factory.mktemp("launching")
    (folder / "tasks").mkdir()
    for name, text in {"tickets": "My parcel is lost.", "colours": "Is it red?", "moods": "I am glad."}.items():
        (folder / "tasks" / f"{name}.txt").write_text(f"{text}\n{text} Really?\n")
    return folder


@pytest.fixture(scope="module")
def mined(folder):
    code, _, told = recross(folder, "mine", "-o", "mined", *MINE)
    assert code == 0, told
    return pq.read_table(folder / "mined" / "pairs.parquet")


def start(folder: Path, *words: str) -> subprocess.Popen:
    """Starts `recross` in a process of its own."""
    command = [sys.executable, "-m", "recross_hf", *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def heed_interrupts() -> None:
        """Undoes what tests inherit that a script started in the background: they ignore interrupts, and so would the command."""
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen(command, cwd=folder, start_new_session=True, preexec_fn=heed_interrupts, **streams)


def jobs_of(driver: subprocess.Popen) -> list[psutil.Process]:
    """The processes that do the work of the jobs of this machine."""
    children = psutil.Process(driver.pid).children(recursive=True)
    return [child for child in children if "submitit.core._submit" in child.cmdline()]


def wait_for(condition, what: str, timeout: float = 120):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"Waited {timeout} seconds for {what}.")
        time.sleep(0.02)
    return found


def signal_in_the_middle(folder: Path, driver: subprocess.Popen, number: int) -> None:
    """Signals a job once a query set is there and others are missing."""
    wait_for(lambda: list((folder / "query_sets").glob("[0-9]*.parquet")), "a query set")
    (job, *_) = jobs_of(driver)
    job.send_signal(number)
    assert len(list((folder / "query_sets").glob("[0-9]*.parquet"))) < 6


# ---- what a job does ---------------------------------------------------------------------------------------------------


def test_a_command_runs_in_jobs_and_leaves_their_logs(tmp_path):
    assert launch(["--version"], tmp_path / "out", LauncherArguments("local", num_jobs=1)) == 0
    (log,) = (tmp_path / "out" / "jobs").glob("*/*_log.out")
    assert re.search(r"^recross \d", log.read_text(), re.M)


def test_a_mistake_is_told_in_a_line_and_not_made_again(tmp_path, caplog):
    words = ["adpt", "$(touch injected); x.txt"]
    with pytest.raises(JobError, match=r"Job \d+ \([12] of 2\) failed: recross: Expected one of .*found 'adpt'"):
        launch(words, tmp_path / "out", LauncherArguments("local", num_jobs=2, max_retries=5))
    assert not caplog.records
    assert not list(tmp_path.rglob("injected"))


@pytest.mark.slow
def test_the_reason_is_the_last_word_of_the_command_or_of_a_traceback(tmp_path, monkeypatch):
    with pytest.raises(JobError, match=r"failed: recross mine: .* found --nonsense\..*every one\.$"):
        launch(["mine", "--nonsense"], tmp_path / "out", LauncherArguments("local", num_jobs=1))
    executor = submitit.LocalExecutor(tmp_path / "raising")
    job = executor.submit(int, "x")
    assert outcome_of(job) == (None, "ValueError: invalid literal for int() with base 10: 'x'.")
    job = executor.submit(sys.exit)
    job.wait()
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 0)
    job.paths.stderr.write_bytes("größer".encode("latin-1"))
    assert outcome_of(job) == (None, "it ended without a result, in the state FINISHED.")


def test_what_submitit_pickles_is_words_and_numbers(tmp_path):
    launch(["--version"], tmp_path / "out", LauncherArguments("local", num_jobs=1, cpus_per_task=3))
    (pickled,) = (tmp_path / "out" / "jobs").glob("*/*_submitted.pkl")
    command = submitit.core.utils.DelayedSubmission.load(pickled).function
    assert command == Command(["--version"], str(pickled.parent), 1, 3)
    assert b"recross_hf.launching.job" in pickled.read_bytes()  # by its name, and not by its code


def test_words_are_passed_as_they_are(folder, monkeypatch):
    said = []
    monkeypatch.setattr("recross_hf.cli.jobs.launch", lambda words, *_: said.append(words))
    (folder / "jobs.yaml").write_text("launcher: local\nnum_jobs: 3\n")
    words = ["--config", "jobs.yaml", "-o", "with space; $(x)", "--query_files", "tasks/*.txt"]
    code, _, told = recross(folder, "adapt", *words)
    assert said == [["adapt", *words, "--launcher", "none"]]
    assert code == 1
    assert "Failed: colours: see the logs in with space; $(x)/jobs" in told  # as no job has run


def test_a_module_of_the_current_folder_is_not_taken_for_one_of_the_libraries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cloudpickle.py").write_text("raise SystemExit('This ran.')")
    assert launch(["--version"], "out", LauncherArguments("local", num_jobs=1, max_retries=0)) == 0


# ---- jobs that end early -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_that_is_killed_is_begun_again_and_the_result_is_that_of_one_process(folder, mined):
    driver = start(folder, "mine", "-o", "killed", *MINE, *LOCAL, "1")
    signal_in_the_middle(folder / "killed", driver, signal.SIGKILL)
    printed, told = driver.communicate(timeout=300)
    assert driver.returncode == 0, told
    assert re.search(
        r"Job \d+ \(1 of 1\) failed: it ended without a result, .* It is begun again \(1 of 2\)\. Its", told
    )
    assert pq.read_table(folder / "killed" / "pairs.parquet").equals(mined)
    assert "6 query sets" in printed


@pytest.mark.slow
def test_a_job_that_is_preempted_goes_on_where_it_was(folder, mined):
    driver = start(folder, "mine", "-o", "preempted", *MINE, *LOCAL, "1")
    signal_in_the_middle(folder / "preempted", driver, signal.SIGUSR2)
    _, told = driver.communicate(timeout=300)
    assert driver.returncode == 0, told
    assert re.search(r"Job \d+ was preempted or ran out of time\. It is begun again, and goes on where it was\.", told)
    assert " failed: " not in told
    assert pq.read_table(folder / "preempted" / "pairs.parquet").equals(mined)


@pytest.mark.slow
def test_two_jobs_share_the_query_sets_an_interrupt_cancels_both_and_the_command_goes_on(folder, mined):
    words = ("mine", "-o", "interrupted", *MINE, *LOCAL, "2")
    driver = start(folder, *words)
    wait_for(lambda: list((folder / "interrupted" / "query_sets").glob("[0-9]*.parquet")), "a query set")
    jobs = jobs_of(driver)
    driver.send_signal(signal.SIGINT)
    _, told = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert told.splitlines()[-1].startswith("recross mine: It was interrupted.")
    assert "Traceback" not in told
    assert len(jobs) == 2
    assert not [job for job in jobs if job.is_running() and job.status() != psutil.STATUS_ZOMBIE]
    there = {path.name: path.stat().st_mtime_ns for path in (folder / "interrupted" / "query_sets").glob("[0-9]*")}
    assert 0 < len(there) < 6
    driver = start(folder, *words)
    _, told = driver.communicate(timeout=300)
    assert driver.returncode == 0, told
    assert pq.read_table(folder / "interrupted" / "pairs.parquet").equals(mined)
    for name, written in there.items():
        assert (folder / "interrupted" / "query_sets" / name).stat().st_mtime_ns == written


DEAF = """
import os, signal, sys, time
if "submitit.core._submit" in sys.orig_argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open(f"deaf-{os.getpid()}", "w").close()
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", ["a terminal", "kill"])
def test_no_job_is_left_where_a_terminal_interrupts_all_processes_or_the_command_is_ended(by, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(DEAF)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    driver = start(tmp_path, "mine", "-o", "out", *LOCAL, "2")
    wait_for(lambda: len(list(tmp_path.glob("deaf-*"))) == 2, "both jobs")
    jobs = jobs_of(driver)
    if by == "kill":
        driver.terminate()
    else:
        os.killpg(driver.pid, signal.SIGINT)
    driver.communicate(timeout=60)
    left = [job for job in jobs if job.is_running() and job.status() != psutil.STATUS_ZOMBIE]
    for job in left:
        job.kill()
    assert (driver.returncode, len(jobs), left) == (143 if by == "kill" else 130, 2, [])


@pytest.mark.parametrize("ignores", [False, True])
def test_a_job_is_cancelled_where_the_next_cannot_be_submitted(ignores, tmp_path, monkeypatch):
    submit, jobs = submitit.LocalExecutor.submit, []

    def once(*args):
        if jobs:
            raise OSError("There is no room.")
        jobs.append(submit(*args))
        return jobs[0]

    monkeypatch.setattr(submitit.LocalExecutor, "submit", once)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(DEAF)
    # What a shell script starts in the background ignores interrupts.
    handler = signal.SIG_IGN if ignores else signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(OSError, match="There is no room"):
            launch(["--version"], tmp_path / "out", LauncherArguments("local", num_jobs=2))
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert jobs[0].done()


@pytest.mark.parametrize(
    "ending", [SystemExit(144), RuntimeError("Job not requeued because: timed-out too many times.")]
)
def test_no_command_takes_the_end_of_a_job_for_an_error_in_its_work(ending, tmp_path, monkeypatch):
    def of_submitit(*_):
        command.checkpoint()
        raise ending

    def works(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(10)
        except Exception:
            pytest.fail("The command took it for an error of its own.")

    command = Command(["mine"], str(tmp_path))
    monkeypatch.setattr("runpy.run_module", works)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    before = signal.signal(signal.SIGUSR2, of_submitit)
    try:
        with pytest.raises(type(ending), match=str(ending)):
            command()
    finally:
        signal.signal(signal.SIGUSR2, before)
    told = [path.name for path in tmp_path.glob("*.requeued")]
    assert told == (["7-1.requeued"] if isinstance(ending, SystemExit) else [])


def test_a_job_is_begun_again_as_often_as_was_asked_for(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 0)  # nothing comes late on this disk
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'submitit.core._submit' in sys.orig_argv: os.kill(os.getpid(), 9)\n"
    )
    arguments = LauncherArguments("local", num_jobs=1, max_retries=2)
    with pytest.raises(
        JobError, match=r"found that all 1 failed, at last so: it ended without a result, in the state FIN"
    ):
        launch(["--version"], tmp_path / "out", arguments)
    endings = [re.search(r"It is (.*)\. Its log", record.message)[1] for record in caplog.records]
    assert endings == ["begun again (1 of 2)", "begun again (2 of 2)", "given up"]


# ---- what commands make in jobs ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_benchmark_in_jobs_is_that_of_one_process(folder):
    words = ("benchmark", "--num_test", "4", "--methods", "none", "random", "--num_retrieved", "4", "--max_steps", "1")
    assert recross(folder, *words, "-o", "cells")[0] == 0
    code, printed, told = recross(folder, *words, "-o", "cells-in-jobs", *LOCAL, "2")
    assert code == 0, told
    assert "The work is done by 2 jobs, which share it, on this machine. Logs are in cells-in-jobs/jobs/." in printed

    def cells(name: str) -> dict[str, dict]:
        files = (folder / name / "cells").rglob("*.json")
        return {str(file.relative_to(folder / name)): json.loads(file.read_text()) for file in files}

    one, jobs = cells("cells"), cells("cells-in-jobs")
    assert one.keys() == jobs.keys()
    assert all(one[name]["predictions"] == jobs[name]["predictions"] for name in one)
    assert (folder / "cells-in-jobs" / "report.html").is_file()


@pytest.mark.slow
def test_cells_that_fail_are_tried_again_and_then_told_as_without_a_launcher(folder, caplog):
    words = ("benchmark", "--num_test", "4", "--methods", "none", "random", "--num_retrieved", "4", "--max_steps", "1")
    bad = ("--optim", "adamw_bnb_8bit", "-o", "failing")  # there is no bitsandbytes
    code, printed, told = recross(folder, *words, *bad, *LOCAL, "1", "--max_retries", "1")
    assert code == 1
    again, given_up = [record.message for record in caplog.records if record.name.startswith("recross_hf.launching")]
    failed = told.splitlines()
    assert re.search(r"failed: random on \w+, .* It is begun again \(1 of 1\)\. Its log: ", again)
    assert " It is given up. Its log: " in given_up
    assert all(line.startswith("Failed: random on ") for line in failed)
    assert len(failed) == 7
    assert "| All@mean |" in printed


@pytest.mark.slow
def test_adaptations_to_many_tasks_in_jobs_are_those_of_one_process(folder):
    assert recross(folder, "adapt", "-o", "adapted", *ADAPT)[0] == 0
    code, printed, told = recross(folder, "adapt", "-o", "adapted-in-jobs", *ADAPT, *LOCAL, "2")
    assert code == 0, told
    assert "3 of 3 tasks are adapted to" in printed
    for name in ("tickets", "colours", "moods"):
        one, jobs = (folder / top / name / "model.safetensors" for top in ("adapted", "adapted-in-jobs"))
        assert one.read_bytes() == jobs.read_bytes()


@pytest.mark.slow
def test_a_job_of_two_processes_is_a_group(folder, mined, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.chdir(folder)
    executor = submitit.LocalExecutor(folder / "group")
    executor.update_parameters(timeout_min=5, tasks_per_node=2)
    words = ["mine", "-o", "by-group", *MINE]
    job = executor.submit(Command(words, str(folder / "group"), num_processes=2))
    assert job.results() == [0, 0], job.stderr()
    assert pq.read_table(folder / "by-group" / "pairs.parquet").equals(mined)


# ---- slurm -------------------------------------------------------------------------------------------------------------

SBATCH = """#!/bin/bash
cp "$1" "$STUB/submission.sh"
echo "$SBATCH_ACCOUNT" > "$STUB/account"
last=$(grep -oP '(?<=--array=0-)[0-9]+' "$1")
for number in $(seq 0 ${last:-0}); do
    if [ -n "$last" ]; then export SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$number; fi
    SLURM_JOB_ID=$((7 + number)) bash "$1" &> /dev/null &
done
echo Submitted batch job 7
"""
SRUN = """#!/bin/bash
while [ -n "$1" ] && [ "$1" != "$PYTHON" ]; do shift; done
exec "$@"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of a slurm of one machine, which knows no states: what comes of a job is seen in its files."""
    stub = tmp_path / "slurm"
    stub.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": "#!/bin/bash\n", "scancel": "#!/bin/bash\n"}.items():
        (stub / name).write_text(text)
        (stub / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub}:{os.environ['PATH']}")
    monkeypatch.setenv("STUB", str(stub))
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0)
    monkeypatch.setitem(launcher._SECONDS_BETWEEN_LOOKS, "slurm", 0.2)
    return stub


def test_slurm_is_asked_for_an_array_with_the_resources(slurm, tmp_path, monkeypatch):
    arguments = LauncherArguments(
        "slurm", num_jobs=3, cpus_per_task=4, gpus_per_node=0, mem_gb=1.5, timeout_min=90, slurm_partition="long"
    )
    monkeypatch.setenv("SBATCH_ACCOUNT", "ours")
    assert launch(["--version"], tmp_path / "out", arguments) == 0
    asked = set(re.findall(r"^#SBATCH --(\S+)$", (slurm / "submission.sh").read_text(), re.M))
    assert asked >= {
        *("array=0-2%3", "cpus-per-task=4", "mem=1536MB", "time=90", "partition=long", "job-name=recross---version"),
        *("nodes=1", "ntasks-per-node=1"),
    }
    assert not [line for line in asked if line.startswith("gpus")]
    assert (slurm / "account").read_text().split() == ["ours"]


def test_a_job_that_submits_jobs_hands_them_nothing_of_its_own(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SBATCH_ACCOUNT", "ours")
    assert launch(["--version"], tmp_path / "out", LauncherArguments("slurm", num_jobs=1)) == 0
    assert (slurm / "account").read_text().split() == []


def test_each_gpu_of_a_slurm_job_has_a_process(tmp_path, slurm):
    arguments = LauncherArguments("slurm", gpus_per_node=8)
    executor = executors.executor_of(tmp_path, "recross-mine", arguments)
    asked = {name: executor.parameters[name] for name in ("gpus_per_node", "ntasks_per_node", "array_parallelism")}
    assert asked == {"gpus_per_node": 8, "ntasks_per_node": 8, "array_parallelism": 2}


def test_where_there_is_no_slurm_the_other_launcher_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"Expected slurm's srun on this machine, found none\. .*--launcher local\."):
        launch(["--version"], tmp_path / "out", LauncherArguments("slurm"))


# ---- GPUs of this machine ----------------------------------------------------------------------------------------------


def test_jobs_of_this_machine_take_its_gpus_in_turn(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    assert [executors._gpus_of(number, 1) for number in range(4)] == [[4], [5], [7], [4]]
    assert [executors._gpus_of(number, 2) for number in range(2)] == [[4, 5], [7, 4]]
    assert executors._gpus_of(0, 0) == []
    with pytest.raises(ValueError, match=r"--gpus_per_node of at most 3, the GPUs of this machine, found 4"):
        executors._gpus_of(0, 4)


def test_jobs_that_leave_the_gpus_idle_are_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    executors.executor_of(tmp_path, "recross-mine", LauncherArguments("local", gpus_per_node=1))
    assert not caplog.records
    executors.executor_of(tmp_path, "recross-mine", LauncherArguments("local"))
    assert "leave the 2 GPUs of this machine idle: --gpus_per_node 1 gives a job one." in caplog.text
