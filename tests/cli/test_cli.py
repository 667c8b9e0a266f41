"""The command: it starts without the stack, its help fits a screen, and it adapts, quietly, into a folder that opens."""

import html
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from example_scripts import as_of_a_new_process, recross, run, score_few
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM

from recross_hf import ReCrossPipeline, load_starter_task
from recross_hf.adaptation import answer_form
from recross_hf.adaptation.record import RETRIEVED_FILE
from recross_hf.cli import adapt, console
from recross_hf.cli.main import COMMANDS, main
from recross_hf.data.starter import STARTER_DIRECTORY
from recross_hf.models.generation import generate_answers
from recross_hf.training import scoring

FAST = ["--num_retrieved", 8, "--max_steps", 1, "--max_target_length", 4, "--use_cpu"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv(adapt.PIPELINE_VARIABLE, raising=False)
    (tmp_path / "tickets.txt").write_text("My parcel is lost.\nMy bill is wrong.\n")
    return tmp_path


def contents(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_overview_and_a_wrong_command_need_nothing_of_the_stack():
    code = (
        "import contextlib, sys\nfrom recross_hf.cli.main import main\nmain(['--help'])\nmain(['--version'])\n"
        "with contextlib.suppress(SystemExit): main(['adpt'])\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *said, modules = done.stdout.splitlines()
    assert not {"torch", "transformers", "numpy", "huggingface_hub", "rich"} & set(modules.split())
    assert all(any(line.startswith(f"  {name} ") for line in said) for name in COMMANDS)
    assert len(said) <= 40
    assert max(map(len, said)) <= 80
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_fits_a_screen_and_another_shows_everything(name, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, short, _ = recross(tmp_path, name, "--help")
    assert code == 0
    assert len(short.splitlines()) <= 40
    assert max(map(len, short.splitlines())) <= 80
    assert "--config FILE" in short
    code, full, _ = recross(tmp_path, name, "--help-all")
    assert code == 0
    shown = {word.strip(",") for word in short.split() if word.startswith("--")}
    assert shown <= {word.strip(",[]") for word in full.split()}
    if name in ("adapt", "demo", "train", "train-reranker", "benchmark"):
        assert "--weight_decay" in full
        assert "--weight_decay" not in short


def test_a_file_of_inputs_is_enough(folder):
    code, printed, told = recross(folder, "adapt", "tickets.txt", *FAST)
    assert (code, folder.name in printed) == (0, False), told
    assert "tickets: 2 unlabelled inputs, 8 upstream examples" in printed
    assert 'ReCrossPipeline.from_pretrained("adapted")' in printed
    assert "{'train_runtime'" not in printed
    assert "report.html" in printed
    page = html.unescape((folder / "adapted" / "report.html").read_text(encoding="utf-8"))
    assert "My bill is wrong." in page
    assert re.search("The adapted model answers (1 of 2|2 of 2|all 2) inputs", page)
    assert 'ReCrossPipeline.from_pretrained("adapted")' in page
    for noise in ("Loading weights", "Writing model shards", "Warning"):
        assert noise not in told
    assert re.search(r"Training: 100%.* 1/1 \[", told)
    pipeline = ReCrossPipeline.from_pretrained(folder / "adapted")
    assert len(pipeline.retrieved) == 8
    assert pipeline.arguments().max_target_length == 4
    assert len(pipeline.index) == len(ReCrossPipeline.from_pretrained().index)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "adapted")
    opened = pipeline.adapted_model.state_dict()
    assert all((value == opened[name]).all() for name, value in model.state_dict().items())
    # Again, into the same folder; then from it.
    assert recross(folder, "adapt", "tickets.txt", "--seed", 3, *FAST)[0] == 0
    assert recross(folder, "adapt", "tickets.txt", "--pipeline", "adapted", "-o", "further", *FAST)[0] == 0
    assert ReCrossPipeline.from_pretrained(folder / "further").adapted_model is not None
    code, _, told = recross(folder, "adapt", "tickets.txt", "-o", "adapted/upstream_model", *FAST)
    assert (code, "found" in told) == (2, True)


@pytest.fixture
def answered(monkeypatch):
    """The inputs of every call that generates answers."""
    calls = []

    def counted(model, processing_class, inputs, **kwargs):
        calls.append(sorted(inputs))
        return generate_answers(model, processing_class, inputs, **kwargs)

    monkeypatch.setattr(scoring, "generate_answers", counted)
    return calls


def shelf(folder, number=16):
    inputs = load_starter_task("library_shelf")[0]["input"][:number]
    (folder / "tickets.txt").write_text("\n".join(inputs))
    return inputs


def test_what_leaves_the_form_of_answers_is_not_kept_and_everything_says_so(folder, answered):
    inputs = shelf(folder)
    fast = ["--num_retrieved", 8, "--max_steps", 3, "--use_cpu", "--learning_rate", 3]
    code, printed, _ = recross(folder, "adapt", "tickets.txt", *fast)
    assert code == 0
    gate = json.loads((folder / "adapted" / "results.json").read_text())["gate"]
    assert (gate["level"], gate["kept"], gate["base"]["answers"]["num_with_options"]) == ("form", False, 16)
    said = "16 of 16 answers were among the options of their input; now none are."
    assert said in gate["lost_form"]
    assert f"safety gate (form): not kept, the base's weights were put back. {said}" in printed
    for page in ("README.md", "report.html"):
        text = html.unescape((folder / "adapted" / page).read_text(encoding="utf-8"))
        assert said in text
        assert "were among the options of their input" in text
    pipeline = ReCrossPipeline.from_pretrained(folder / "adapted")
    upstream = pipeline.upstream_model.state_dict()
    assert all((value == upstream[name]).all() for name, value in pipeline.adapted_model.state_dict().items())
    # For the gate and the report together, each input was answered once by each model.
    assert answered == [sorted(inputs)] * 2


@pytest.mark.parametrize("words", [["--gate", "off"], ["--safety_gate", "false"], ["--preset", "paper"]])
def test_without_a_gate_nothing_is_put_back(words, folder, answered):
    inputs = shelf(folder, 8)
    fast = ["--num_retrieved", 8, "--max_steps", 3, "--use_cpu", "--learning_rate", 3]
    assert recross(folder, "adapt", "tickets.txt", *words, *fast)[0] == 0
    assert json.loads((folder / "adapted" / "results.json").read_text())["gate"] is None
    assert answered == [sorted(inputs)] * 2


def test_inputs_that_the_gate_passes_over_are_answered_for_the_report(folder, answered, monkeypatch):
    monkeypatch.setattr(answer_form, "MOST_ANSWERS", 5)
    inputs = shelf(folder, 8)
    assert recross(folder, "adapt", "tickets.txt", *FAST)[0] == 0
    assert [len(call) for call in answered] == [3, 5, 5, 3]
    assert sorted(answered[0] + answered[1]) == sorted(answered[2] + answered[3]) == sorted(inputs)


def test_a_run_that_is_killed_leaves_no_manifest_of_an_earlier_model(folder, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    assert recross(folder, "adapt", "tickets.txt", *FAST)[0] == 0
    monkeypatch.setattr(adapt, "write_adapted_manifest", killed)
    assert recross(folder, "adapt", "tickets.txt", "--seed", 3, *FAST)[0] == 130
    assert "model.safetensors" in contents(folder / "adapted")
    assert "recross.json" not in contents(folder / "adapted")


def test_without_what_draws_pictures_there_is_all_but_the_picture(folder, monkeypatch):
    monkeypatch.setattr(adapt, "can_draw", lambda: False)
    code, printed, _ = recross(folder, "adapt", "tickets.txt", *FAST)
    assert (code, "retrieved_tasks.png was left out: pip install 'recross_hf[plot]'" in printed) == (0, True)
    assert "retrieved_tasks.png" not in contents(folder / "adapted")
    assert ReCrossPipeline.from_pretrained(folder / "adapted").adapted_model is not None


def test_an_adapter_opens_as_a_pipeline_and_with_peft(folder):
    (folder / "settings.yaml").write_text("query_file: tickets.txt\nuse_peft: true\nlora_r: 3\noutput_dir: lora\n")
    words = ["adapt", "--config", "settings.yaml", "--lora_r", 2, "--quiet", *FAST]
    code, printed, told = recross(folder, *words)
    assert (code, told) == (0, "")
    assert "Written to lora/" in printed
    pipeline = ReCrossPipeline.from_pretrained(folder / "lora")
    assert pipeline.adapted_model.peft_config["default"].r == 2
    assert isinstance(pipeline("My parcel is late."), str)
    PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(STARTER_DIRECTORY / "upstream_model"), folder / "lora"
    )


def test_the_pipeline_is_the_one_that_is_named_or_that_the_environment_names(folder, monkeypatch):
    monkeypatch.setenv(adapt.PIPELINE_VARIABLE, "./named-by-the-environment")
    code, _, told = recross(folder, "adapt", "tickets.txt", *FAST)
    assert (code, "named-by-the-environment" in told) == (2, True)
    code, _, told = recross(folder, "adapt", "tickets.txt", "--pipeline", "./named-here", *FAST)
    assert (code, "named-here" in told) == (2, True)
    score_few(monkeypatch)
    assert recross(folder, "demo", *FAST)[0] == 0  # the starter


def test_the_command_and_the_script_give_the_same_files(folder):
    run(folder, "adapt.py", "--query_file", "tickets.txt", "--output_dir", "script", *FAST)
    assert recross(folder, "adapt", "tickets.txt", "--output_dir", "command", *FAST)[0] == 0
    assert contents(folder / "script") == contents(folder / "command") >= {"recross.json", "README.md", "results.json"}
    first, second = (Dataset.from_parquet(str(folder / name / RETRIEVED_FILE)) for name in ("script", "command"))
    assert first[:] == second[:]
    first, second = ((folder / name / "model.safetensors").read_bytes() for name in ("script", "command"))
    assert first == second


def test_what_lies_in_the_way_goes_where_that_is_asked_for(folder):
    (folder / "old").mkdir()
    (folder / "old" / "index.json").write_text("{}")
    (folder / "old" / "notes.md").write_text("mine")
    code, _, told = recross(folder, "adapt", "tickets.txt", "-o", "old", *FAST)
    assert (code, "found an index (index.json)" in told) == (2, True)
    assert contents(folder / "old") == {"index.json", "notes.md"}
    # A mistake takes nothing away.
    code, *_ = recross(folder, "adapt", "tickets.txt", "-o", "old", "--overwrite", "--exclude_tasks", "nothing", *FAST)
    assert (code, contents(folder / "old")) == (2, {"index.json", "notes.md"})
    assert recross(folder, "adapt", "tickets.txt", "-o", "old", "--overwrite", *FAST)[0] == 0
    assert {"notes.md", "recross.json", "model.safetensors"} <= contents(folder / "old")
    assert not (folder / "old" / "index.json").exists()
    assert ReCrossPipeline.from_pretrained(folder / "old").adapted_model is not None


@pytest.mark.parametrize("wrong", ["--dry_run", "a mistake"])
@pytest.mark.parametrize("command", ["train", "index", "train-reranker"])
def test_what_lies_in_the_way_stays_where_nothing_comes_of_it(folder, command, wrong):
    rows = [{"task": f"t{row % 4}", "input": f"a question {row}", "references": ["yes"]} for row in range(16)]
    Dataset.from_list(rows).to_json(folder / "upstream.jsonl")
    pairs = [
        {
            "query": "q",
            "candidate": f"c{row}",
            "answer": "yes",
            "utility": 0.5,
            "query_id": f"q{row}",
            "candidate_id": f"c{row}",
            "rank": row,
            "label": row % 2,
            "query_task": f"t{row}",
            "candidate_task": "u",
            "set": row,
        }
        for row in range(16)
    ]
    Dataset.from_list(pairs).to_parquet(folder / "pairs.parquet")
    if wrong == "a mistake":
        (folder / "upstream.jsonl").write_text("no example")
        Dataset.from_list(pairs).remove_columns("label").to_parquet(folder / "pairs.parquet")
    (folder / "old").mkdir()
    there = {"recross.json", "index.json", "model.safetensors"}
    for name in there:
        (folder / "old" / name).write_text("{}")
    part = "reranker" if command == "train-reranker" else "upstream_model"
    read = ("--pairs", "pairs.parquet") if command == "train-reranker" else ("--train_files", "upstream.jsonl")
    given = ("--model_name_or_path", str(STARTER_DIRECTORY / part), *read, "-o", "old", "--overwrite")
    code, _, told = recross(folder, command, *given, *(["--dry_run"] if wrong == "--dry_run" else []))
    assert code == (0 if wrong == "--dry_run" else 2), told
    assert contents(folder / "old") == there


def test_large_files_of_a_part_are_linked_to_and_not_copied(folder, monkeypatch):
    from recross_hf.cli import outputs

    ReCrossPipeline.from_pretrained().save_pretrained(folder / "pipeline")
    monkeypatch.setattr(outputs, "LARGE", 1 << 20)
    assert recross(folder, "adapt", "tickets.txt", "--pipeline", "pipeline", *FAST)[0] == 0
    for name, is_same in (("upstream_model/model.safetensors", True), ("upstream_model/config.json", False)):
        assert os.path.samefile(folder / "pipeline" / name, folder / "adapted" / name) == is_same
    # On another file system too much is not copied: that is said, and the model opens all the same.
    monkeypatch.setattr(outputs, "LARGE", 1 << 40)
    monkeypatch.setattr(outputs, "MOST_COPIED", 1 << 20)
    code, printed, _ = recross(folder, "adapt", "tickets.txt", "--pipeline", "pipeline", *FAST)
    assert (code, "recross.json was left out" in printed) == (0, True)
    assert not (folder / "adapted" / "recross.json").exists()
    AutoModelForSeq2SeqLM.from_pretrained(folder / "adapted")


REPORT = (
    "A run of 13,800 examples with a name that goes on until the eightieth column, where words are kept whole.\n\n"
    "model    SoftEM  n\n------------------\nbase       38.6  5\nchange    +25.4\nother     -25.4\n\n"
    "        needed  there is\n------------------------\ntime      37 s\nmemory  650 MB   15.4 GB\n\n"
    "| task | dense |\n| --- | ---: |\n| sum | **50.0** |\n\nWritten to adapted/."
)


def test_a_report_is_plain_where_nobody_looks_and_has_tables_where_somebody_does(capsys, monkeypatch):
    console.show(REPORT)
    assert capsys.readouterr().out == REPORT + "\n"
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    console.show(REPORT)
    shown = terminal.getvalue()
    for style, cell in (("32", " +25.4"), ("31", " -25.4"), ("1", "50.0")):
        assert f"\x1b[{style}m{cell}\x1b[0m" in shown
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    lines = [line.rstrip() for line in plain.splitlines()]
    assert lines[1].endswith("whole.")
    assert max(map(len, lines)) <= 80
    assert sum(set(line.strip()) <= set("─━") and line != "" for line in lines) == 3  # three tables
    assert " time       37 s" in lines
    assert "Written to adapted/." in lines
    assert "|" not in plain
    assert "\n\n\n" not in "\n".join(lines).partition("15.4 GB")[0]  # one empty line between blocks


def test_the_stack_is_heard_where_that_is_asked_for(monkeypatch):
    import logging
    import warnings

    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    for volume, level in ((console.Volume.NORMAL, logging.ERROR), (console.Volume.VERBOSE, logging.INFO)):
        with as_of_a_new_process():
            logging.getLogger("transformers").setLevel(logging.INFO)
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                with console.set_up(volume):
                    warnings.warn_explicit("theirs", UserWarning, "a.py", 1, module="transformers.trainer")
                    warnings.warn_explicit("ours", UserWarning, "b.py", 1, module="recross_hf.some")
            assert logging.getLogger("transformers").level == level
            is_verbose = volume is console.Volume.VERBOSE
            assert [str(one.message) for one in heard] == ["theirs"] * is_verbose + ["ours"]


@pytest.mark.slow
def test_the_module_is_the_command(folder):
    command = [sys.executable, "-m", "recross_hf", "adapt", "tickets.txt", *map(str, FAST)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, "Written to adapted/" in done.stdout) == (0, True), done.stderr


@pytest.mark.slow
def test_under_a_launcher_two_processes_do_it_together_and_a_reason_stands_last(folder):
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
    ]
    command += ["1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "recross_hf", "adapt"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}

    def launched(*words):
        line = [*command, *map(str, words)]
        return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    done = launched("tickets.txt", *FAST)
    assert (done.returncode, done.stdout.count("Written to adapted/")) == (0, 1), done.stderr
    assert json.loads((folder / "adapted" / "results.json").read_text())["num_retrieved"] == 8
    assert ReCrossPipeline.from_pretrained(folder / "adapted").adapted_model is not None
    done = launched("nowhere.txt")
    assert done.returncode != 0
    *_, reason, rule = done.stderr.strip().splitlines()
    assert "recross adapt: No file at nowhere.txt. Expected a file" in reason
    assert set(rule) == {"="}
    assert done.stderr.count("No file at nowhere.txt") == 1
    assert "recross_hf/cli" not in done.stderr  # no frames of ours
    # One process: with --quiet the launcher adds nothing.
    alone = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--quiet",
        "--cpu",
        "-m",
        "recross_hf",
        "adapt",
        "nowhere.txt",
    ]
    done = subprocess.run(alone, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith("recross adapt: No file at nowhere.txt.")


def test_every_launch_that_is_shown_keeps_the_launcher_quiet():
    """A launcher of one process would put a traceback of its own below the reason; nothing that it starts can keep it from that."""
    root = Path(__file__).resolve().parents[2]
    pages = [
        root / "README.md",
        *(page for name in ("docs", "examples") for page in (root / name).rglob("*") if page.is_file()),
    ]
    shown = [
        line
        for page in pages
        if page.suffix in (".md", ".py", ".yaml", ".ipynb")
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.search(r"accelerate launch \S*[-/]", line)
    ]
    assert len(shown) > 20
    assert [line for line in shown if "accelerate launch --quiet " not in line] == []


def test_no_words_show_the_overview(capsys):
    main([])
    assert capsys.readouterr().out.startswith("usage: recross COMMAND")
