"""Cards: their metadata is what the Hub takes, and no text of others can break them or pass for something else."""

import json
import re
from pathlib import Path

import huggingface_hub
import pytest
import tiny
import yaml
from datasets import Dataset, Features, Value
from huggingface_hub import DatasetCard, ModelCard, RepoCard, SpaceCard, constants
from hypothesis import given
from hypothesis import strategies as st
from loopback_hub import Client, client_environment
from packaging.version import Version

from recross_hf import CrossEncoderReranker, ReCrossPipeline, RerankerTrainer, RerankerTrainingArguments
from recross_hf.adaptation.model_card import adapted_model_card
from recross_hf.adaptation.record import Adaptation, Evaluation
from recross_hf.cli import publish
from recross_hf.core.cards import TEMPLATES, cell, rows
from recross_hf.hub.repository import Repository
from recross_hf.mixture.arguments import MixtureArguments
from recross_hf.mixture.dataset_card import mixture_card
from recross_hf.models.architectures import DECODER_ONLY, SEQUENCE_TO_SEQUENCE
from recross_hf.pipeline.cards import (
    base_model_card,
    encoder_card,
    lora_settings,
    pipeline_card,
    upstream_adapter_card,
    upstream_model_card,
)
from recross_hf.reranking.model_card import reranker_card
from recross_hf.retrieval.dataset_card import index_card

ROOT = Path(__file__).parents[2]
OURS = sorted((ROOT / "model_cards").glob("*.md"))
KIND_OF = {"index": DatasetCard, "soft_em": SpaceCard}
NOT_YET = ("bart0", "index", "reranker")
COMMIT = "0123456789" * 4
PLACES = {
    "upstream_model": Repository("org/p-upstream-model", "model", COMMIT),
    "index": Repository("org/p-index", "dataset", COMMIT),
}
HOSTILE = "a|b\n---\nlicense: evil\n---\n# x <img src=q> [l](http://e) `c` {{ card_data }} \"' \u2028 ~~*_s_*~~"
INDEX_CONFIG = {
    "factory": "Flat",
    "metric": "l2",
    "dimension": 4,
    "num_examples": 3,
    "encoder": {"weights": "ab" * 32},
}

# Of what the Hub allows, those that stand in cards here.
LICENCES = {"apache-2.0", "mit", "other"}
PIPELINE_TAGS = {"text-generation", "text-ranking", "sentence-similarity"}
LIBRARIES = {"transformers", "peft", "recross_hf", "sentence-transformers"}
NAME = re.compile(r"[\w.-]+/[\w.-]+")


def problems(card):
    """What the Hub would refuse or not know in the metadata of a card."""
    data = card.data.to_dict()
    names = [*([data["base_model"]] if data.get("base_model") else []), *data.get("datasets", [])]
    found = [name for name in names if not NAME.fullmatch(name)]
    allowed = {"license": LICENCES, "pipeline_tag": PIPELINE_TAGS, "library_name": LIBRARIES}
    found += [data[key] for key, known in allowed.items() if key in data and data[key] not in known]
    if data.get("license") == "other":
        found += [key for key in ("license_name", "license_link") if not data.get(key)]
    for model in data.get("model-index", []):
        for result in model["results"]:
            places = [result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"]]
            found += [place for place in places if not isinstance(place, str) or not place]
            found += [metric for metric in result["metrics"] if not isinstance(metric["value"], float)]
    return found


def read(text, kind=ModelCard):
    """A card as a client reads it; what is not valid raises."""
    card = kind(str(text))
    assert not problems(card)
    assert "{{" not in card.text and "{%" not in card.text
    assert not re.search(r"(?<!\| )\bNone\b(?! found)", card.text)
    assert "\n\n\n" not in card.text
    return card


def retrieved(tasks=("sum", "colour", "sum"), num_examples=30):
    features = {"rank": "int64", "id": "string", "task": "string", "query": "int64", "distance": "float64"}
    values = [
        {"rank": n, "id": f"{tasks[n % len(tasks)]}/{n}", "task": tasks[n % len(tasks)], "query": 0, "distance": n / 8}
        for n in range(num_examples)
    ]
    return Dataset.from_list(values, features=Features({name: Value(kind) for name, kind in features.items()}))


def adapted_card(name="me/triage", *, evaluations=None, **settings):
    given = {
        "base_model": "org/bart0",
        "adaptation": Adaptation(16, {"learning_rate": 1e-4}, evaluations or {}),
        "retrieved": retrieved(),
        "architecture": SEQUENCE_TO_SEQUENCE,
        "processing_class": tiny.tokenizer(),
        "is_peft": False,
    }
    return adapted_model_card(name, **given | settings)


# ---- our own ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_the_projects_cards_are_what_the_hub_takes(path):
    card = KIND_OF.get(path.stem, ModelCard).load(path)
    assert not problems(card)
    assert card.data.license and card.data.tags
    for heading in ("## How to use it", "## Limits", "## Citation"):
        assert heading in card.text
    assert "@inproceedings{lin2022unsupervised" in card.text


@pytest.mark.parametrize("name", NOT_YET)
def test_what_was_not_trained_says_so_and_claims_no_result(name):
    card = ModelCard.load(ROOT / "model_cards" / f"{name}.md")
    assert re.search(r"^> \*\*Not (trained|made) yet\.\*\*", card.text.lstrip().split("\n\n")[1])
    assert "model-index" not in card.data.to_dict()
    assert "ot measured yet" in card.text


@pytest.mark.parametrize("name", ["bart0", "index"])
def test_the_training_data_are_those_of_the_recipe(name):
    text = (ROOT / "model_cards" / f"{name}.md").read_text()
    tasks = yaml.safe_load((ROOT / "src/recross_hf/tasks/recross.yaml").read_text())["upstream"]
    listed = re.findall(r"^\| (\S+) \| \[(\S+)\]\(.*?\) \| (\S*) ?\| (\S+) \|$", text, re.MULTILINE)
    assert listed == [
        (task["task"], task["dataset"], str(task.get("config", "")), task["templates"]) for task in tasks
    ]
    if name == "bart0":
        assert set(ModelCard(text).data.datasets) == {task["dataset"] for task in tasks}


def test_the_settings_of_bart0_are_those_of_its_recipe():
    text = (ROOT / "model_cards" / "bart0.md").read_text()
    recipe = yaml.safe_load((ROOT / "examples/recipes/bart0.yaml").read_text())
    assert f"| steps | {recipe['max_steps']:,} of {4 * recipe['per_device_train_batch_size']} examples" in text
    assert f"{float(recipe['learning_rate']):.0e}".replace("e-0", "e-") in text
    assert f"at most {recipe['max_input_length']} and {recipe['max_target_length']} tokens" in text


def test_the_results_of_the_starter_are_those_that_were_measured():
    correct = json.loads((ROOT / "benchmarks/results/starter_gain.json").read_text())["correct"]
    card = ModelCard.load(ROOT / "model_cards" / "starter.md")
    found = {result.dataset_type.partition("/")[2]: result.metric_value for result in card.data.eval_results}
    measured = {task: scores["exact_match"]["dense by task"] for task, scores in correct.items()}
    assert found == {
        task: round(sum(100 * one.count("1") / len(one) for one in sets) / len(sets), 1)
        for task, sets in measured.items()
    }


def test_publishing_fills_in_the_names():
    for path in OURS:
        text = str(publish.read_card(path, "org/small"))
        assert "this-" not in text
    assert 'from_pretrained("org/small")' in str(publish.read_card(ROOT / "model_cards/bart0.md", "org/small"))
    space = publish.metric_space("org")
    assert set(space.files) == {"README.md", "app.py", "requirements.txt", "soft_em.py"}
    assert 'evaluate.load("org/soft_em")' in space.files["README.md"].decode()


# ---- written ones ----------------------------------------------------------------------------------------------------


def written_cards(bart, cross_encoder, examples):
    dataset = examples.add_column("extra", [0] * len(examples))
    results = {"eval_soft_em": 50.0, "eval_exact_match": 40.0}
    results["tasks"] = {"sum": {"soft_em": 50.0, "exact_match": 40.0, "n": 10}}
    evaluations = {"adapted": Evaluation(50.0, 40.0, 10, ["sum"], True)}
    report = {"source": "org/sums", "license": "mit", "rows": 9, "train": 8, "dev": 1, "notes": [], "overlap": {}}
    report |= {"templates": {"add": 9}, "templates_left_out": {}, "dropped": {}}
    return {
        "pipeline": pipeline_card("org/p", PLACES, adaptation={"learning_rate": 1e-6}, license="mit"),
        "upstream_model": upstream_model_card(
            "org/p-u", bart.config, examples=dataset, results=results, license="mit"
        ),
        "upstream_adapter": upstream_adapter_card(
            "org/p-u",
            base_model="org/base",
            base_revision=COMMIT,
            architecture=DECODER_ONLY,
            processing_class=tiny.causal_tokenizer(),
            settings=lora_settings({"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": {"b", "a"}}),
            examples=dataset,
            license="mit",
        ),
        "base_model": base_model_card("org/p-b", bart.config, "org/p", "org/p-u"),
        "encoder": encoder_card("org/p-e", "org/p", prompt="query: "),
        "index": index_card("org/p-i", dataset, INDEX_CONFIG),
        "reranker": reranker_card("org/p-r", cross_encoder.config, license="mit"),
        "adapted_model": adapted_card(parts=PLACES, evaluations=evaluations),
        "mixture": mixture_card({"sum": report}, args=MixtureArguments(), num_target_texts=0),
    }


@pytest.mark.skipif(
    Version(huggingface_hub.__version__) < Version("2.2"),
    reason="huggingface_hub before 2.2 has huggingface.co check cards",
)
def test_each_kind_of_card_is_what_the_hub_takes(bart, cross_encoder, examples, hub, tmp_path):
    cards = written_cards(bart, cross_encoder, examples)
    assert {path.stem for path in TEMPLATES.iterdir()} == {*cards, "supervision"}  # which test_report looks at
    for card in cards.values():
        again = read(card, type(card))
        assert again.data.to_dict() == card.data.to_dict()
        for heading in ("## Limits", "## Licence", "## Citation"):
            assert heading in again.text
        assert "{lin2022unsupervised,\n" in again.text
    paths = {**{name: str(card) for name, card in cards.items()}, **{path.stem: path.read_text() for path in OURS}}
    kinds = {name: "dataset" if name in ("index", "mixture") else "model" for name in paths} | {"soft_em": "space"}
    with Client(client_environment(hub.endpoint, tmp_path / "home", hub.token), tmp_path) as client:
        client(validate_all, texts=paths, kinds=kinds)


def validate_all(texts, kinds):
    from huggingface_hub import RepoCard

    for name, text in texts.items():
        RepoCard(text).validate(repo_type=kinds[name])


def test_an_upstream_models_card_lists_data_and_results_by_task(bart, examples):
    results = {"eval_soft_em": 62.5, "eval_exact_match": 55.0, "eval_loss": 1.0, "tasks": {}}
    results["tasks"] = {
        "sum": {"soft_em": 50.0, "exact_match": 40.0, "loss": 1.0, "n": 100},
        "colour": {"soft_em": 75.0, "exact_match": 70.0, "loss": 1.0, "n": 400},
    }
    card = read(
        upstream_model_card(
            "org/b", bart.config, pipeline_id="org/p", examples=examples, results=results, license="mit"
        )
    )
    assert "| sum | 100 | 50.00 (40.38 to 59.62) | 40.00 (30.94 to 49.80) |\n" in card.text
    assert "SoftEM 62.50, exact match 55.00." in card.text
    assert 'ReCrossPipeline.from_pretrained("org/p")' in card.text
    counts = {task: examples["task"][:].count(task) for task in set(examples["task"])}
    for task, count in counts.items():
        assert f"| {task} | {count} | {100 * count / len(examples):.1f} % |" in card.text
    found = {(result.dataset_name, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert found == {
        ("sum", "soft_em"): 50.0,
        ("sum", "exact_match"): 40.0,
        ("colour", "soft_em"): 75.0,
        ("colour", "exact_match"): 70.0,
    }
    assert "`mit` The terms of the model" in card.text
    bare = read(upstream_model_card("org/b", bart.config))
    assert bare.data.eval_results is None and bare.data.license is None
    assert "Not recorded here." in bare.text and "Not stated" in bare.text


def test_a_rerankers_card_names_the_tasks_that_it_learned_from(tmp_path):
    tokenizer = tiny.pair_tokenizer()
    model, pairs = tiny.cross_encoder(tokenizer), tiny.pairs()
    args = RerankerTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    reranker = RerankerTrainer(model, args, train_dataset=pairs, processing_class=tokenizer).reranker()
    reranker.save_pretrained(tmp_path / "saved")
    config = CrossEncoderReranker.from_pretrained(tmp_path / "saved", device="cpu").model.config
    tasks = sorted(set(pairs["query_task"][:]))
    assert f"these upstream tasks: {', '.join(tasks)}." in read(reranker_card("org/r", config)).text
    assert "was not recorded" in read(reranker_card("org/r", tiny.cross_encoder(tokenizer).config)).text


def test_an_adapted_card_lists_what_it_learned_from_and_how_it_does():
    evaluations = {
        "base": Evaluation(40.0, 30.0, 100, ["triage"], False),
        "adapted": Evaluation(50.0, 40.0, 100, ["triage"], True),
        "mean": Evaluation(45.0, 35.0, 200, ["triage", "b", "c", "d"], True, is_mean=True),
    }
    card = read(adapted_card(evaluations=evaluations, license="apache-2.0"))
    assert "| upstream | triage | 100 | 40.00 (30.94 to 49.80) | 30.00 (21.89 to 39.58) |\n" in card.text
    assert "| adapted | triage | 100 | 50.00 (40.38 to 59.62) | 40.00 (30.94 to 49.80) |\n" in card.text
    assert "| adapted (mean) | 4 tasks | 200 | 45.00 | 35.00 |\n" in card.text
    assert [(result.metric_type, result.metric_value) for result in card.data.eval_results] == [
        ("soft_em", 50.0),
        ("exact_match", 40.0),
    ]
    assert card.data.eval_results[0].dataset_name == "triage" and card.data.model_name == "triage"
    assert "| sum | 66.7 % |\n| colour | 33.3 % |\n" in card.text
    assert "| 19 | colour/19 | colour | 2.375 |\n" in card.text and "| 20 |" not in card.text
    assert "The first 20 of them; `retrieved.parquet`" in card.text
    assert card.data.base_model == "org/bart0" and card.data.to_dict()["base_model_relation"] == "finetune"
    assert 'AutoModelForSeq2SeqLM.from_pretrained("me/triage")' in card.text
    assert "`apache-2.0` The terms" in card.text


def test_an_adapters_card_names_the_commit_of_its_base_and_how_it_answers():
    settings = {"max_target_length": 9, "generation_num_beams": 4}
    given = {"is_peft": True, "base_revision": COMMIT, "adaptation": Adaptation(16, settings)}
    card = read(adapted_card(base_model="org/bart0", **given))
    assert f'AutoModelForSeq2SeqLM.from_pretrained("org/bart0", revision="{COMMIT}"), "me/triage")' in card.text
    assert "model.generate(input_ids=ids, do_sample=False, max_new_tokens=9, num_beams=4)[0]" in card.text
    assert COMMIT not in str(read(adapted_card(base_model="/home/x/bart0", **given)))
    causal = read(adapted_card(architecture=DECODER_ONLY, **given)).text
    code = causal.split("```python\n")[1].split("```")[0]
    assert 'settings = {"do_sample": False, "eos_token_id": tokenizer.eos_token_id}' in code
    compile(code, "card", "exec")


@pytest.mark.parametrize("part", ["base_model", "upstream_model"])
def test_a_base_that_is_a_part_of_a_pipeline_is_named_with_its_folder(part):
    card = read(adapted_card(base_model=f"/home/x/tickets/{part}", is_peft=True, architecture=DECODER_ONLY))
    assert f'AutoModelForCausalLM.from_pretrained("tickets/{part}"), "me/triage")' in card.text
    assert f"This model is `tickets/{part}` adapted" in card.text and "/home/x" not in str(card)


def test_an_adapters_card_loads_it_onto_its_base():
    card = read(adapted_card(parts=PLACES, base_model="org/p-upstream-model", is_peft=True, architecture=DECODER_ONLY))
    assert (
        'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("org/p-upstream-model"), "me/triage")'
        in card.text
    )
    assert 'ReCrossPipeline.from_pretrained("me/triage")' in card.text
    assert f"| index | [org/p-index](https://huggingface.co/datasets/org/p-index) | `{COMMIT}` |" in card.text
    assert card.data.datasets == ["org/p-index"] and card.data.library_name == "peft"
    assert "It was not evaluated" in card.text and card.data.eval_results is None
    assert card.data.to_dict()["base_model_relation"] == "adapter"


@pytest.mark.parametrize("base", ["/home/x/runs/bart0", "", "a name with spaces", "x--y"])
def test_a_base_that_is_nowhere_on_the_hub_is_no_metadata(base):
    card = read(adapted_card(base_model=base))
    assert card.data.base_model is None and "/home/x" not in str(card)
    assert f"This model is `{base.rpartition('/')[2] or 'a local model'}` adapted" in card.text


def test_what_is_not_known_any_more_is_left_out():
    card = read(adapted_card(adaptation=Adaptation(None, {"seed": 1}), retrieved=None, parts=PLACES))
    assert "A few of its inputs selected a few examples" in card.text
    assert "## What it learned from" not in card.text


def test_links_lead_to_the_hub_in_use(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example.org")
    for card in (adapted_card(parts=PLACES), pipeline_card("org/p", PLACES, adaptation={})):
        assert "https://hub.example.org/datasets/org/p-index" in card.text
        assert "huggingface.co" not in card.text


# ---- text of others --------------------------------------------------------------------------------------------------


@given(st.text())
def test_a_cell_is_one_line_of_text(text):
    found = cell(text)
    assert found.isprintable() and len(found.splitlines()) <= 1
    bare = re.sub(r"\\[\\`*\[\]<>|#~$_]", "", found)
    assert not set(bare) & set("\\`*[]<>|#~$")
    assert not re.search(r"(?<!\w)_|_(?!\w)", re.sub(r"\\.", "x", found))


@given(st.lists(st.lists(st.text(), min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_table_keeps_its_rows_and_columns(values):
    lines = rows(values).split("\n")
    assert len(lines) == len(values)
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 4 for line in lines)


def test_names_that_people_write_stay_readable():
    assert cell("fill_blank") == "fill_blank"
    assert cell("kilt_tasks-hotpotqa") == "kilt_tasks-hotpotqa"
    assert cell("a" * 500) == "a" * 200 + "..."


def test_hostile_names_break_no_card(bart, cross_encoder):
    evaluations = {HOSTILE: Evaluation(50.0, 40.0, 10, [HOSTILE], True)}
    texts = Dataset.from_dict(
        {"id": ["1"], "task": [HOSTILE], "template": [HOSTILE], "input": ["x"], "references": [["y"]]}
    )
    bart_config, reranker_config = (type(model.config)(**model.config.to_dict()) for model in (bart, cross_encoder))
    bart_config.architectures, reranker_config.query_tasks = [HOSTILE], [HOSTILE]
    results = {"eval_soft_em": 1.0, "eval_exact_match": 1.0}
    results["tasks"] = {HOSTILE: {"soft_em": 1.0, "exact_match": 1.0, "n": 3}}
    encoder = {"class": HOSTILE}
    report = {"source": HOSTILE, "license": HOSTILE, "rows": 1, "train": 1, "dev": 1, "notes": [HOSTILE]}
    report |= {"templates": {HOSTILE: 1}, "templates_left_out": {HOSTILE: HOSTILE}, "overlap": {HOSTILE: 1}}
    cards = [
        adapted_card(retrieved=retrieved((HOSTILE,)), evaluations=evaluations, title=HOSTILE, tags=[HOSTILE]),
        upstream_model_card("org/p-u", bart_config, examples=texts, results=results),
        index_card("org/p-i", texts, INDEX_CONFIG | {"encoder": encoder}),
        reranker_card("org/p-r", reranker_config),
        pipeline_card("org/p", PLACES, adaptation={"select_by": HOSTILE}),
        mixture_card({"t": report | {"dropped": {HOSTILE: 1}}}, args=MixtureArguments(), num_target_texts=1),
    ]
    for card in cards:
        again = type(card)(str(card))
        assert again.data.to_dict() == card.data.to_dict()
        assert again.data.license is None
        assert "---\nlicense" not in again.text and "\n# x" not in again.text
        assert "<img" not in re.sub(r"\\<", "", again.text) and "](http://e" not in re.sub(r"\\\]", "", again.text)
    assert "| a\\|b --- license: evil" in cards[0].text
    assert cards[0].data.eval_results[0].dataset_name == HOSTILE  # quoted by YAML, and thus only a name


# ---- cards that people write -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(bart, tokenizer, examples, tmp_path):
    ReCrossPipeline.build(bart, tokenizer, examples, tmp_path / "small")
    return tmp_path / "small"


def published(pipeline, tmp_path, **settings):
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    publications = pipeline.publication("org/small", scratch, **settings).publications()
    return {publication.repo_id: publication.files["README.md"].decode() for publication in publications}


def test_a_card_beside_a_part_is_published_as_it_is_and_kept(folder, tmp_path):
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Ours\n")
    (folder / "index" / "README.md").write_text("no header\r\n")
    pipeline = ReCrossPipeline.from_pretrained(folder, device="cpu")
    found = published(pipeline, tmp_path, license="apache-2.0")
    assert found["org/small"] == "---\nlicense: mit\n---\n# Ours\n"
    assert found["org/small-index"] == "no header\r\n"
    assert ModelCard(found["org/small-upstream-model"]).data.license == "apache-2.0"
    for place in (tmp_path / "copy", folder):
        pipeline.save_pretrained(place)
        assert (place / "README.md").read_text() == "---\nlicense: mit\n---\n# Ours\n"
        assert (place / "index" / "README.md").read_bytes() == b"no header\r\n"
        (place / "index" / "README.md").write_text("written anew, which breaks no checksum")
        ReCrossPipeline.from_pretrained(place, device="cpu").index  # noqa: B018
    adapted = pipeline.adapt(tiny.queries(), max_steps=1, num_retrieved=4, use_cpu=True, disable_tqdm=True)
    card = ModelCard(published(adapted, tmp_path, license="mit")["org/small"])
    assert "adapted to an unseen task" in card.text and card.data.license == "mit"
    assert card.data.base_model == "org/small-upstream-model" and card.data.datasets == ["org/small-index"]
    assert f"{len(tiny.queries())} of its inputs selected 4 examples" in card.text
    assert 'AutoModelForSeq2SeqLM.from_pretrained("org/small")' in card.text


def test_cards_that_are_given_come_first_and_must_be_of_a_part(folder, tmp_path):
    (folder / "index" / "README.md").write_text("beside it")
    pipeline = ReCrossPipeline.from_pretrained(folder, device="cpu")
    cards = {"index": RepoCard("---\nlicense: mit\n---\ngiven"), "pipeline": RepoCard("---\nlicense: mit\n---\nown")}
    found = published(pipeline, tmp_path, cards=cards)
    assert found["org/small-index"].endswith("given") and found["org/small"].endswith("own")
    with pytest.raises(
        ValueError, match="Expected cards of pipeline, upstream_model, index or reranker, found metric"
    ):
        published(pipeline, tmp_path, cards={"metric": cards["index"]})


def test_the_card_of_an_adapter_names_all_that_is_beneath_it(bart, cross_encoder, examples):
    card = read(written_cards(bart, cross_encoder, examples)["upstream_adapter"])
    base = f'AutoModelForCausalLM.from_pretrained("org/base", revision="{COMMIT}")'
    assert f'model = PeftModel.from_pretrained({base}, "org/p-u")' in card.text
    assert (card.data.base_model, card.data.base_model_relation) == ("org/base", "adapter")
    assert "| `target_modules` | a, b |" in card.text
    beneath = Repository("org/base", "model", COMMIT)
    given = {"is_peft": True, "base_model": "org/p-u", "base_revision": COMMIT, "beneath": beneath}
    card = read(adapted_card(**given, parts=PLACES, architecture=DECODER_ONLY))
    base = f'AutoModelForCausalLM.from_pretrained("org/base", revision="{COMMIT}", dtype="float32")'
    assert f'base = PeftModel.from_pretrained({base}, "org/p-u", revision="{COMMIT}").merge_and_unload()' in card.text
    assert 'model = PeftModel.from_pretrained(base, "me/triage")' in card.text
