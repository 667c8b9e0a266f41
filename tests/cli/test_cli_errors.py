"""A user's mistake ends in one line that says what was expected and found, and what to do; a bug keeps its traceback."""

import json
import re
import shutil
import sys

import pytest
from example_scripts import recross

from recross_hf.cli import adapt, errors, main
from recross_hf.data.starter import STARTER_DIRECTORY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: inputs, files with faults, and pipelines, one of them damaged."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "tickets.txt").write_text("My parcel is lost.\nMy bill is wrong.\n")
    (folder / "empty.txt").write_text("\n\n")
    (folder / "asked.jsonl").write_text(json.dumps({"question": "Is it red?"}) + "\n")
    (folder / "unknown.yaml").write_text("num_retrieved: 8\nlearnig_rate: 1\n")
    (folder / "twice.yaml").write_text("num_retrieved: 8\nseed: 1\nnum_retrieved: 9\n")
    (folder / "worded.yaml").write_text("num_retrieved: many\n")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "index").mkdir()
    (folder / "index" / "index.json").write_text("{}")
    for name in ("pipeline", "damaged"):
        shutil.copytree(STARTER_DIRECTORY, folder / name)
    with (folder / "damaged" / "upstream_model" / "config.json").open("a") as file:
        file.write("\n")
    return folder


MISTAKES = [
    ("adpt tickets.txt", "Expected one of the commands demo, .*, found 'adpt'. Did you mean adapt?"),
    ("adapt nowhere.txt", "No file at nowhere.txt. Expected a file, a folder or a pattern of .parquet"),
    ("adapt empty.txt", "empty.txt: Expected at least one example, found none"),
    ("adapt asked.jsonl", "input"),
    ("adapt tickets.txt --learing_rate 3", "found --learing_rate. Did you mean --learning_rate?"),
    ("adapt tickets.txt --learning-rat 3", "found --learning-rat. Did you mean --learning_rate?"),
    ("adapt tickets.txt --num_retr 3", "found --num_retr. Did you mean --num_retrieved?"),
    ("adapt tickets.txt more.txt", "found more.txt"),
    (
        "adapt tickets.txt --query_file other.txt",
        "Expected `query_file` once, found tickets.txt and --query_file other.txt",
    ),
    ("adapt tickets.txt --num_retrieved many", "Expected int as --num_retrieved, found 'many'"),
    ("adapt tickets.txt --num_retrieved", "Expected one value after --num_retrieved, found none"),
    ("adapt --use_peft tickets.txt", "Expected true or false after --use_peft, found tickets.txt"),
    ("adapt tickets.txt --num_retrieved 0", "`num_retrieved` must be at least 1, found 0"),
    ("adapt tickets.txt --load_best_model_at_end --save_strategy steps", "load_best_model_at_end requires"),
    (
        "adapt tickets.txt --preset papers",
        "Expected one of 'paper', 'authors_code', 'as_run' as --preset, found 'papers'",
    ),
    ("adapt tickets.txt --columns inputs=text", "expected one of the names id, .*, found 'inputs'"),
    ("adapt tickets.txt --exclude_tasks nothing", "Expected to exclude upstream tasks, found nothing"),
    (
        "adapt tickets.txt --use_peft --lora_target_modules zzz",
        "Expected `target_modules` that .* has, .* found 'zzz'",
    ),
    ("adapt --pipeline pipeline", "--pipeline needs --query_file, the unlabelled inputs of your task"),
    (
        "train-reranker --pairs . --model_name_or_path x -o out",
        "Expected pairs.parquet of `recross mine` as --pairs, found none",
    ),
    ("adapt tickets.txt --pipeline ./nowhere", "Expected the folder of a pipeline, found none at nowhere"),
    ("adapt tickets.txt --pipeline model", "Expected a pipeline folder with recross.json, found none in model"),
    ("adapt tickets.txt --pipeline damaged", "config.json is not the file that was saved: its checksum differs"),
    ("adapt tickets.txt --pipeline org/nothing", "org/nothing"),
    ("adapt tickets.txt --pipeline pipeline -o pipeline", "Expected an `output_dir` apart from the pipeline"),
    ("adapt tickets.txt --pipeline pipeline -o pipeline --overwrite", "Expected an `output_dir` apart from the pipe"),
    ("adapt tickets.txt -o index", r"Expected `output_dir` to be .*, found an index \(index.json\)"),
    ("adapt tickets.txt -o tickets.txt", "Expected a folder to write to at tickets.txt, found the file tickets.txt"),
    ("adapt tickets.txt --config nowhere.yaml", "Expected a recipe, a YAML file, at nowhere.yaml, found none"),
    ("adapt tickets.txt --config unknown.yaml", "unknown.yaml, line 2, found 'learnig_rate', .*mean learning_rate?"),
    ("adapt tickets.txt --config twice.yaml", "'num_retrieved' a second time in \"twice.yaml\", line 3"),
    ("adapt tickets.txt --config worded.yaml", "worded.yaml: Expected int as --num_retrieved, found 'many'"),
    ("demo --task nothing", r"Expected a task of the starter \(bus_stop, .*\), found"),
    ("demo --pipeline pipeline", "Expected the starter and one of its tasks, found --pipeline: `recross adapt` takes"),
    ("prepare -o upstream", "Expected --tasks or --files, one of them, found neither"),
    ("prepare --tasks nowhere.yaml -o upstream", "nowhere.yaml"),
    ("train --model_name_or_path model -o trained", "Expected the argument --train_files, found none"),
    (
        "train --train_files asked.jsonl -o trained --eval_strategy no",
        "--encoder_name_or_path, one of them, found neither",
    ),
    ("index --model_name_or_path ./nowhere --train_files pipeline/index/examples.parquet -o new", "nowhere"),
    ("index --model_name_or_path model --train_files x --part 1 -o new", "--part: gone, for `--engine ray` shares"),
    ("index --model_name_or_path model --train_files x --num_parts=8 --part 1 -o new", "--part and --num_parts: gone"),
    (
        "index --model_name_or_path model --train_files x --storage s3://b/i -o new",
        "--storage: for --engine ray, found --engine local",
    ),
    (
        "index --model_name_or_path model --train_files x --engine ray --factory SQ8 -o new",
        "--factory: for --engine local, found --engine ray",
    ),
    ("mine -o mined --judge groupz", "Expected one of 'groups', 'reversal' as --utility_estimator, found 'groupz'"),
    ("train-reranker --pairs nowhere.parquet -o reranker", "as --pairs, found none at nowhere.parquet"),
    (
        "benchmark --methods none --ablations recross",
        r"Expected methods of the run \(none\) as --ablations, found recross",
    ),
    ("publish --dry_run", "Expected the argument --namespace, found none"),
    ("publish --namespace org --cards modl=x.md --dry_run", "expected one of the names pipeline, .*, found 'modl'"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_ends_in_one_line(words, said, folder, monkeypatch):
    monkeypatch.delenv(adapt.PIPELINE_VARIABLE, raising=False)
    before = sorted(folder.rglob("*"))
    code, printed, told = recross(folder, *words.split())
    print(told)
    (line,) = told.splitlines()
    assert code == 2
    assert re.match(r"recross( [\w-]+)?: ", line)
    assert re.search(said.replace("?", r"\?"), line), line
    assert not printed
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_takes_a_file_of_arguments_and_refuses_one_with_faults(name, folder):
    (folder / "faulty.yaml").write_text("# a comment\nzzz: 1\n")
    code, _, told = recross(folder, name, "--config", "faulty.yaml")
    (folder / "faulty.yaml").unlink()
    assert (code, told.count("\n")) == (2, 1)
    assert "faulty.yaml, line 2, found 'zzz', which is none" in told


def test_a_package_that_is_not_there_is_named_with_what_installs_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    code, _, told = recross(folder, "adapt", "tickets.txt", "--use_peft")
    assert (code, told.count("\n")) == (2, 1)
    assert "Expected the package peft, found none. Install it: pip install 'recross_hf[peft]'" in told


def test_frames_are_shown_where_they_are_asked_for(folder):
    with pytest.raises(FileNotFoundError, match=r"No file at nowhere\.txt"):
        recross(folder, "adapt", "nowhere.txt", "--debug")


def test_a_bug_keeps_its_traceback(folder, monkeypatch):
    def of_the_library(*_):
        return int("x")

    monkeypatch.setattr(adapt, "inputs_of", of_the_library)
    with pytest.raises(ValueError, match="invalid literal"):
        recross(folder, "adapt", "tickets.txt")


def test_what_the_library_raises_on_purpose_is_a_mistake_and_what_happens_to_it_is_a_bug():
    code = "def purpose(): raise RuntimeError('Expected a, found b.')\ndef accident(): return {}['a'] + int('x')\n"
    found = {}
    for module in ("recross_hf.some", "somebody.else"):
        names = {"__name__": module}
        exec(code, names)
        for name in ("purpose", "accident"):
            try:
                names[name]()
            except Exception as error:
                found[module, name] = errors.is_mistake(error)
    assert [place for place, is_mistake in found.items() if is_mistake] == [("recross_hf.some", "purpose")]


def test_under_a_launcher_of_processes_the_line_goes_to_where_the_launcher_reads_it(tmp_path, monkeypatch, capsys):
    """What `torchrun` and `accelerate launch` print last, once."""
    monkeypatch.setattr(errors, "_SECONDS_FOR_THE_MAIN_PROCESS", 0)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit) as end:
        main.run("adapt", [str(tmp_path / "nowhere.txt")])
    assert end.value.code == 2
    told = json.loads((tmp_path / "error.json").read_text())["message"]["message"]
    assert told.startswith("recross adapt: No file at ")
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit):
            main.run("publish", [])
        assert capsys.readouterr().err.count("\n") == lines


def test_an_interrupt_is_no_traceback(folder, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(adapt, "inputs_of", interrupted)
    code, _, told = recross(folder, "adapt", "tickets.txt")
    assert (code, told.count("\n")) == (130, 1)
    assert "interrupted" in told


def test_the_nearest_is_named_and_nothing_far():
    assert errors.nearest("--learn", ["--learning_rate", "--lora_r"]) == " Did you mean --learning_rate?"
    assert errors.nearest("--zzz", ["--learning_rate"]) == ""
    assert sys.argv  # the command reads it where it is given no words
