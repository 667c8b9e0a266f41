"""Careless command lines, on every command: each ends in one line that says what to do, and no file is written."""

import json
import re
import shutil

import pytest
from example_scripts import recross

from recross_hf.cli import adapt
from recross_hf.data.starter import STARTER_DIRECTORY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("careless")
    (folder / "tickets.txt").write_text("My parcel is lost.\nMy bill is wrong.\n")
    (folder / "Grüße.txt").write_text("Wo ist mein Päckchen?\n", encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (folder / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n\x00" + bytes(range(256)))
    (folder / "broken.jsonl").write_text('{"input": "Is it red?"}\n{"input": \n')
    (folder / "broken.parquet").write_text("no parquet")
    (folder / "empty.jsonl").write_text("")
    (folder / "asked.jsonl").write_text(json.dumps({"input": "Is it red?"}) + "\n")
    (folder / "list.yaml").write_text("- tickets.txt\n")
    (folder / "nested.yaml").write_text("num_retrieved: {a: 1}\n")
    (folder / "broken.yaml").write_text("num_retrieved: [1\n")
    (folder / "good.yaml").write_text("query_file: tickets.txt\nnum_retrieved: 8\n")
    (folder / "targets.yaml").write_text("targets: nothing\n")
    (folder / "empty").mkdir()
    shutil.copytree(STARTER_DIRECTORY, folder / "pipeline")
    return folder


MODEL, EXAMPLES = "pipeline/upstream_model", "pipeline/index/examples.parquet"
CARELESS = [
    ("adapt -", "found -: standard input is not read"),
    ("adapt picture.png", "Expected a file that ends in .parquet, .*, found picture.png"),
    ("adapt picture.txt", "Expected examples in picture.txt, found a document or a picture under that name"),
    ("adapt broken.jsonl", "Expected a JSON record in line 2 of broken.jsonl"),
    ("adapt broken.parquet", "Expected parquet in broken.parquet, found a malformed file"),
    ("adapt empty", "No file at empty. Expected a file, a folder or a pattern"),
    ("adapt empty.jsonl", "Expected examples, found no record in empty.jsonl"),
    ("adapt tickets.txt --num_retrieved 99999999999999999999", "Expected --num_retrieved of at most 13,800"),
    ("adapt tickets.txt --num_retrieved 1e3", "Expected int as --num_retrieved, found '1e3'"),
    ("adapt tickets.txt --learning_rate 0,001", "Expected float as --learning_rate, found '0,001'"),
    ("adapt tickets.txt --learning_rate nan", "`learning_rate` must be a finite number"),
    ("adapt tickets.txt --query_set 3", "Expected --query_set with a task of the starter"),
    ("adapt tickets.txt --num_queries 0", "Expected --num_queries of at least 1, found 0"),
    ("adapt tickets.txt --use_peft --lora_r 0", "Expected --lora_r of at least 1, found 0"),
    ("adapt tickets.txt --seed -1", "`seed` must be from 0 to 4294967295, found -1"),
    ("adapt tickets.txt -o", "Expected one value after --output_dir, found none"),
    ("adapt tickets.txt --pipeline tickets.txt", "Name a folder .* or leave it out for the starter"),
    ("adapt tickets.txt --pipeline Grüße/📦", "Expected the folder of a pipeline, found none at Grüße/📦"),
    ("adapt tickets.txt --revision main", "Leave `revision` out, or name a repository"),
    ("adapt Grüße.txt --eval_file Grüße.txt", r"\(--columns references=name_in_your_data\)"),
    ("adapt asked.jsonl --columns input", "expected names with values, such as id=value, found 'input'"),
    ("adapt tickets.txt --columns input=text", "Expected --columns of a file that has columns, found a text file"),
    ("adapt tickets.txt --config list.yaml", "Expected names and values .* in list.yaml, found list"),
    ("adapt tickets.txt --config nested.yaml", "nested.yaml: Expected int as --num_retrieved"),
    ("adapt tickets.txt --config broken.yaml", "Expected YAML in broken.yaml, found: .* Mend the file"),
    ("adapt tickets.txt --config picture.png", "found bytes that are no text in UTF-8"),
    ("adapt tickets.txt --config empty", "Expected a recipe, a YAML file, at empty, found none"),
    ("adapt --config good.yaml --num_retrieved 0", "`num_retrieved` must be at least 1, found 0"),
    ("adapt tickets.txt --report_to nowhere", "nowhere is not supported, only"),
    ("adapt tickets.txt --save_strategy sometimes", "sometimes is not a valid SaveStrategy, please select one of"),
    ("adapt tickets.txt --per_device_train_batch_size 0", "must be at least 1, found 0"),
    ("demo bus_stop", "Expected an argument that there is, found bus_stop"),
    ("demo --query_set 7", "Expected a query set from 0 to 4, found 7"),
    ("demo --query_set one", "Expected int as --query_set, found 'one'"),
    ("prepare tickets.txt -o up", "Expected an argument that there is, found tickets.txt"),
    ("prepare --files tickets.txt -o up --quiet", "found tickets.txt: it has no answers"),
    ("prepare --files empty -o up", "No file at empty"),
    ("prepare --tasks list.yaml -o up", "Expected `upstream` and, optionally, `targets` in list.yaml, found list"),
    (f"prepare --files {EXAMPLES} --tasks recross -o up", "Expected --tasks or --files, one of them, found both"),
    (f"prepare --files {EXAMPLES} -o up --num_proc 0", "Expected `num_proc` to be at least 1, found 0"),
    (f"prepare --files {EXAMPLES} -o up --only nothing", "as --only, found nothing"),
    (
        f"train --train_files {EXAMPLES} --model_name_or_path tickets.txt -o t",
        "Expected a model with config.json in ",
    ),
    (f"train --train_files asked.jsonl --model_name_or_path {MODEL} -o t", r"\(--columns references=name_in_your"),
    (
        f"train --train_files {EXAMPLES} --model_name_or_path {MODEL} -o t --max_steps 0",
        "`max_steps` must be at least 1",
    ),
    (f"index --model_name_or_path {EXAMPLES} --train_files {MODEL} -o idx", "Expected a model with config.json in "),
    (
        f"index --model_name_or_path pipeline --train_files {EXAMPLES} -o idx",
        "keeps its model in its folder upstream_model",
    ),
    (
        f"index --model_name_or_path {MODEL} --train_files {EXAMPLES} -o idx --factory Flatt",
        "FAISS takes no index 'Flatt'",
    ),
    (f"index --model_name_or_path {MODEL} --train_files {EXAMPLES} -o idx --vector_dtype int8", "found 'int8'"),
    (f"index --model_name_or_path {MODEL} --train_files empty.jsonl -o idx", "found no record in empty.jsonl"),
    ("mine -o m --num_query_sets 0", "`num_query_sets` must be at least 1, found 0"),
    ("mine -o m --pipeline tickets.txt", "Expected the folder of a pipeline, found none at tickets.txt"),
    ("mine -o m --example_files tickets.txt", r"\(--columns references=name_in_your_data\)"),
    ("mine -o m --reranker pipeline/upstream_model", "Expected a trained reranker in pipeline/upstream_model"),
    (
        f"train-reranker --pairs {EXAMPLES} -o r",
        "Expected pairs.parquet of `recross mine` as --pairs, found .* without q",
    ),
    ("train-reranker --pairs tickets.txt -o r", "Expected parquet in tickets.txt"),
    ("train-reranker --pairs empty -o r", "found none at empty/pairs.parquet"),
    ("benchmark --target_tasks tickets.txt", "Expected a target task in tickets.txt"),
    ("benchmark --target_tasks targets.yaml", "Expected a list `targets` of tasks in targets.yaml, found str"),
    ("benchmark --methods sbert", "Name one with --sbert_name_or_path"),
    ("benchmark --num_in_context 0", "Expected --num_in_context of at least 1, found 0"),
    ("benchmark --methods in_context_by_task", "found 'in_context_by_task'. All but none, random, rds"),
    ("benchmark --num_test 0", "Expected --num_test of at least 1, found 0"),
    ("benchmark --num_query_sets 9", "Expected --num_query_sets of at most 5, as many as the tasks have, found 9"),
    ("publish --namespace a/b --dry_run", "Expected --namespace and --name of letters, .*, found 'a/b/starter'"),
    ("publish --namespace me --name 📦 --dry_run", "Expected --namespace and --name of letters"),
    ("publish pipeline --namespace me --dry_run", "found pipeline. Did you mean --pipeline"),
    ("publish --namespace me --pipeline empty --dry_run", "a model alone is no pipeline"),
    ("publish --namespace me --cards pipeline=picture.png --dry_run", "Expected a card, a text in UTF-8"),
    ("publish --namespace me --results tickets.txt --dry_run", "Expected JSON in tickets.txt"),
]


@pytest.mark.parametrize(("words", "said"), CARELESS, ids=[words for words, _ in CARELESS])
def test_a_careless_line_ends_in_one_line(words, said, folder, monkeypatch):
    monkeypatch.delenv(adapt.PIPELINE_VARIABLE, raising=False)
    before = sorted(folder.rglob("*"))
    code, printed, told = recross(folder, *words.split())
    print(told)
    (line,) = told.splitlines()
    assert (code, printed) == (2, "")
    assert line.startswith(f"recross {words.split()[0]}: ")
    assert re.search(said, line)
    written = [path for path in folder.rglob("*") if path not in before]
    for path in written:
        path.rmdir()  # only what is empty goes
    assert len(written) <= 1
