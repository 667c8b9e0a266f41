"""Pipelines, indexes and rerankers on a Hub, by its real clients; the steps are those of `hub_steps`.

Most tests share two clients: each test has repositories of its own, so that nothing of them is in the reader's cache.
RECROSS_PIPELINE names the folder of a pipeline of real size, which then goes there and back as well.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import tiny
from loopback_hub import (
    Client,
    ClientGone,
    CutAnswer,
    OnArrival,
    OnHalf,
    OnReceipt,
    Status,
    StepError,
    WrongBytes,
    client_environment,
)
from transformers import BartForConditionalGeneration

from recross_hf import CrossEncoderReranker, ReCrossPipeline, load_starter_task
from recross_hf.core.files import REMEMBERED_SIZE
from recross_hf.data.starter import STARTER_DIRECTORY
from recross_hf.hub.errors import HubError
from recross_hf.hub.fetching import _check
from recross_hf.hub.publishing import Publication
from recross_hf.hub.repository import Repository

EXAMPLES = Path(__file__).parents[2] / "examples"
INPUTS = ["Is the review good? It was a lovely film.", "Which colour has the sky?", "Add one and three."]
ADAPTATION = {"max_input_length": 64, "max_target_length": 8}


@pytest.fixture(scope="module")
def folder(answering_bart, tokenizer, examples, tmp_path_factory):
    """A small pipeline with a reranker."""
    folder = tmp_path_factory.mktemp("saved") / "small"
    pipeline = ReCrossPipeline.build(answering_bart, tokenizer, examples, folder, adaptation=ADAPTATION)
    pair_tokenizer = tiny.pair_tokenizer()
    pipeline.reranker = CrossEncoderReranker(tiny.cross_encoder(pair_tokenizer), pair_tokenizer, max_length=50)
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def other_folder(tokenizer, examples, tmp_path_factory):
    """Another model, with half of the examples and no reranker."""
    folder = tmp_path_factory.mktemp("other") / "small"
    ReCrossPipeline.build(tiny.bart(tokenizer, seed=5), tokenizer, examples.select(range(0, 48, 2)), folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The reader's HF_HOME."""
    return tmp_path_factory.mktemp("reader") / "home"


@pytest.fixture(scope="module")
def writer(hub, clients, tmp_path_factory):
    """A client that publishes."""
    folder = tmp_path_factory.mktemp("writer")
    with clients.start(client_environment(hub.endpoint, folder / "home", hub.token), folder, timeout=300) as client:
        yield client


@pytest.fixture(scope="module")
def reader(hub, clients, home):
    """Another client, with a cache of its own."""
    with clients.start(client_environment(hub.endpoint, home, hub.token), home.parent, timeout=300) as client:
        yield client


@pytest.fixture(scope="module")
def lost(clients, home):
    """A client with the reader's cache, whose Hub does not answer."""
    with clients.start(client_environment("http://127.0.0.1:9", home), home.parent) as client:
        client("hub_steps:wait_no_longer")
        yield client


@pytest.fixture(scope="module")
def behaviours(writer, folder, other_folder):
    """What the two pipelines do before they are published."""
    return [
        without_fetched(writer("hub_steps:behaviour", name=str(one), inputs=INPUTS)) for one in (folder, other_folder)
    ]


@pytest.fixture
def named(hub):
    """Names a pipeline of its own, with its parts."""

    def name(name):
        repo_id = hub.name(name)
        hub.named.extend(
            f"{repo_id}-{part}" for part in ("base-model", "upstream-model", "encoder", "index", "reranker")
        )
        return repo_id

    return name


def without_fetched(found):
    return {name: value for name, value in found.items() if name != "fetched"}


def blobs(home, repo_id):
    folders = (f"{kind}--{repo_id.replace('/', '--')}" for kind in ("models", "datasets"))
    return {path.name: path for folder in folders for path in (home / "hub" / folder / "blobs").glob("*")}


# ---- there and back --------------------------------------------------------------------------------------------------


def there_and_back(writer, reader, repo_id, name, inputs):
    """What a pipeline does, after it did the same out of a fresh cache."""
    commit = writer("hub_steps:publish", pipeline=name, repo_id=repo_id)
    expected = without_fetched(writer("hub_steps:behaviour", name=name, inputs=inputs))
    for revision in (None, commit):
        found = reader("hub_steps:behaviour", name=repo_id, inputs=inputs, revision=revision)
        assert found.pop("fetched") == ["upstream_model"]
        assert found == expected
    return expected


def test_the_starter_comes_back_bit_for_bit_from_a_fresh_cache(writer, reader, named):
    inputs = load_starter_task("bus_stop")[0]["input"][:]
    expected = there_and_back(writer, reader, named("starter"), None, inputs)
    assert len(set(expected["answers"])) > 3 and expected["scores"] is not None


def test_a_pipeline_of_real_size_comes_back_bit_for_bit_from_a_fresh_cache(hub, named, tmp_path):
    name = os.environ.get("RECROSS_PIPELINE")
    if name is None:
        pytest.skip("RECROSS_PIPELINE names no folder of a pipeline")
    examples = ReCrossPipeline.from_pretrained(name).index.dataset
    inputs = examples[range(0, len(examples), -(-len(examples) // 8))]["input"]
    settings = [client_environment(hub.endpoint, tmp_path / side, hub.token) for side in ("writer", "reader")]
    with Client(settings[0], tmp_path, timeout=1800) as writer, Client(settings[1], tmp_path, timeout=1800) as reader:
        expected = there_and_back(writer, reader, named("real"), str(Path(name).resolve()), inputs)
    assert len(set(expected["answers"])) > 3 and len(set(expected["ids"])) == 12


def test_each_artifact_opens_with_its_plain_tool(writer, reader, named, folder, examples):
    repo_id = named("plain")
    writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    parts = {name: f"{repo_id}-{name.replace('_', '-')}" for name in ("upstream_model", "index", "reranker")}
    assert reader("hub_steps:open_plainly", repo_id=repo_id, parts=parts) == {
        "model": "BartForConditionalGeneration",
        "tokens": 3,
        "scores": 1,
        "examples": examples["id"][:],
        "attached": 48,
        "vectors": 48,
    }


def test_what_is_there_is_not_uploaded_again(loopback, writer, named, folder):
    repo_id = named("again")
    first = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    loopback.requests.clear()
    assert writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id) == first
    posted = loopback.asked("POST", "PUT")
    assert not [request for request in posted if "/commit/" in request or request.startswith("PUT")]


def test_a_pinned_pipeline_keeps_its_behaviour_after_newer_commits(
    writer, reader, named, folder, other_folder, behaviours
):
    repo_id = named("pinned")
    first = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    second = writer("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
    assert first != second
    for revision, expected in ((first, behaviours[0]), (None, behaviours[1]), (second, behaviours[1])):
        found = reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS, revision=revision)
        assert without_fetched(found) == expected
    assert behaviours[0]["ids"] != behaviours[1]["ids"] and behaviours[0]["answers"] != behaviours[1]["answers"]


def test_a_branch_a_proposal_and_a_private_repository(loopback, writer, reader, named, folder, other_folder):
    repo_id = named("branches")
    writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id, private=True)
    assert all(
        loopback.repository(kind, f"{repo_id}{part}").private
        for kind, part in (("models", ""), ("datasets", "-index"))
    )
    writer("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id, revision="half")
    writer("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id, create_pr=True)
    sizes = {
        revision: writer("hub_steps:open_index", name=repo_id, revision=revision)
        for revision in (None, "half", "refs/pr/1")
    }
    assert sizes == {None: 48, "half": 24, "refs/pr/1": 24}
    with pytest.raises(
        StepError, match=rf"There is no model repository {repo_id} at .*or it is private and not yours"
    ):
        reader("hub_steps:predict", name=repo_id, token=loopback.other_token)
    public = named("public")
    writer("hub_steps:publish", pipeline=str(folder), repo_id=public)
    with pytest.raises(StepError, match=r"to be private, found it public. Change that in its settings"):
        writer("hub_steps:publish", pipeline=str(folder), repo_id=public, private=True)


def test_files_of_an_older_version_go_and_others_stay(loopback, writer, named, folder):
    repo_id = named("older")
    part = f"{repo_id}-upstream-model"
    loopback.add(
        "models",
        part,
        {
            "pytorch_model.bin": b"old",
            "model-00001-of-00002.safetensors": b"",
            "notes.json": b"{}",
            "LICENSE": b"mine",
        },
    )
    writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    files = set(loopback.repository("models", part).commit("main").files)
    assert {"LICENSE", "notes.json", "model.safetensors", "README.md"} <= files
    assert not {"pytorch_model.bin", "model-00001-of-00002.safetensors"} & files


def test_an_index_and_a_reranker_have_names_of_their_own(hub, writer, reader, folder):
    index, reranker = hub.name("index"), hub.name("reranker")
    commits = [
        writer(f"hub_steps:push_{kind}", pipeline=str(folder), repo_id=repo_id)
        for kind, repo_id in (("index", index), ("reranker", reranker))
    ]
    local = ReCrossPipeline.from_pretrained(folder)
    vector = local.index.encoder.encode(["Is it good?"])
    expected = local.index.search(vector, 5).positions.tolist()
    for revision in (None, commits[0]):
        assert reader("hub_steps:pull_index", pipeline=str(folder), repo_id=index, revision=revision) == expected
    expected = local.reranker.score(["a"], ["b", "c"]).tolist()
    for revision in (None, commits[1]):
        assert reader("hub_steps:pull_reranker", repo_id=reranker, revision=revision) == expected
    with pytest.raises(
        StepError, match=rf"There is no dataset repository {index}-gone at .*a folder of this name is not here"
    ):
        reader("hub_steps:pull_index", pipeline=str(folder), repo_id=f"{index}-gone")


def test_a_repository_that_was_downloaded_as_a_folder_is_a_pipeline(
    writer, reader, named, folder, behaviours, tmp_path
):
    repo_id = named("folder")
    writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    reader("hub_steps:download", repo_id=repo_id, folder=str(tmp_path / "copy"))
    found = reader("hub_steps:behaviour", name=str(tmp_path / "copy"), inputs=INPUTS)
    assert without_fetched(found) == behaviours[0]


# ---- adapting what is published --------------------------------------------------------------------------------------


@pytest.mark.parametrize("peft", [False, True], ids=["full", "lora"])
def test_an_adapted_pipeline_names_what_it_was_made_of(peft, loopback, writer, reader, named, folder):
    base, adapted = named("base"), named("adapted")
    writer("hub_steps:publish", pipeline=str(folder), repo_id=base)
    expected = writer("hub_steps:adapt", name=base, peft=peft, inputs=INPUTS)
    loopback.requests.clear()
    writer("hub_steps:publish_adapted", name=base, peft=peft, repo_id=adapted)
    assert {target.split("/")[4] for target in loopback.asked("POST") if "/commit/" in target} == {
        adapted.split("/")[1]
    }
    files = loopback.repository("models", adapted).commit("main").files
    assert {path.rpartition(".")[2] for path in files} <= {"json", "safetensors", "parquet", "md", "gitattributes"}
    manifest = json.loads(files["recross.json"].content)
    upstream = manifest["parts"]["upstream_model"]
    assert upstream["repo_id"] == f"{base}-upstream-model"
    if peft:
        config = json.loads(files["adapter_config.json"].content)
        assert (config["base_model_name_or_path"], config["revision"]) == (upstream["repo_id"], upstream["revision"])
        assert "model.safetensors" not in files
    found = reader("hub_steps:behaviour", name=adapted, inputs=INPUTS, token=False)
    assert {name: found[name] for name in expected} == expected
    assert found["fetched"] == (["adapted_model", "upstream_model"] if peft else ["adapted_model"])
    assert (
        reader("hub_steps:open_adapted_plainly", repo_id=adapted, peft=peft, text=INPUTS[0]) == expected["answers"][0]
    )


@pytest.mark.parametrize("peft", [False, True], ids=["full", "lora"])
def test_an_adapted_pipeline_of_a_folder_publishes_its_parts_as_well(peft, writer, reader, named, folder):
    repo_id = named("local")
    expected = writer("hub_steps:adapt", name=str(folder), peft=peft, inputs=INPUTS)
    writer("hub_steps:publish_adapted", name=str(folder), peft=peft, repo_id=repo_id)
    found = reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS)
    assert {name: found[name] for name in expected} == expected
    assert found["scores"] is not None


# ---- upstream models that are adapters -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_published", [True, False], ids=["base of the Hub", "base of a folder"])
def test_an_upstream_adapter_is_published_apart_from_its_base(
    is_published, loopback, writer, reader, named, answering_bart, tokenizer, examples, tmp_path
):
    base, repo_id, adapted = tmp_path / "base", named("lora"), named("lora-adapted")
    for one in (answering_bart, tokenizer):
        one.save_pretrained(base)
    examples.to_parquet(tmp_path / "examples.parquet")
    base_id = f"{repo_id}-base-model"
    if is_published:
        base_id = named("public-base")
        loopback.add("models", base_id, {path.name: path.read_bytes() for path in base.iterdir()})
    built = writer(
        "hub_steps:build_on_adapter",
        base=base_id if is_published else str(base),
        folder=str(tmp_path / "pipeline"),
        examples=str(tmp_path / "examples.parquet"),
    )
    assert ("repo_id" in built["parts"]["base_model"]) == is_published
    expected = writer("hub_steps:behaviour", name=str(tmp_path / "pipeline"), inputs=INPUTS)
    writer("hub_steps:publish", pipeline=str(tmp_path / "pipeline"), repo_id=repo_id)
    manifest = json.loads(loopback.repository("models", repo_id).commit("main").files["recross.json"].content)
    place = manifest["parts"]["base_model"]
    assert place["repo_id"] == base_id
    assert place["revision"] == loopback.repository("models", base_id).commit("main").oid
    files = loopback.repository("models", f"{repo_id}-upstream-model").commit("main").files
    assert "model.safetensors" not in files
    config = json.loads(files["adapter_config.json"].content)
    assert (config["base_model_name_or_path"], config["revision"]) == (base_id, place["revision"])
    assert f"base_model: {base_id}" in files["README.md"].content.decode()
    if is_published:
        assert (built["settings"]["base_model_name_or_path"], built["settings"]["revision"]) == (
            base_id,
            place["revision"],
        )
        assert f'from_pretrained("{base_id}", revision="{place["revision"]}")' in built["card"]
    found = reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS, token=False)
    assert without_fetched(found) == without_fetched(expected)
    # Of what is adapted, anybody's PEFT finds the base, at the commit.
    answers = writer("hub_steps:go_on_and_publish", name=repo_id, repo_id=adapted, inputs=INPUTS)
    manifest = json.loads(loopback.repository("models", adapted).commit("main").files["recross.json"].content)
    assert manifest["parts"]["adapted_model"]["base"] == "base_model"
    assert reader("hub_steps:predict", name=adapted, inputs=INPUTS) == answers
    assert reader("hub_steps:open_adapted_plainly", repo_id=adapted, peft=True, text=INPUTS[0]) == answers[0]


# ---- encoders of their own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_published", [True, False], ids=["encoder of the Hub", "encoder of a folder"])
def test_an_encoder_is_named_where_the_hub_has_it_and_published_otherwise(
    is_published, loopback, writer, reader, named, answering_bart, tokenizer, examples, tmp_path
):
    base, encoder, repo_id = tmp_path / "base", tmp_path / "encoder", named("encoded")
    for one in (answering_bart, tokenizer):
        one.save_pretrained(base)
    tiny.sentence_transformer(encoder, prompts={"query": "query: ", "none": ""})
    examples.to_parquet(tmp_path / "examples.parquet")
    encoder_id = f"{repo_id}-encoder"
    if is_published:
        encoder_id = named("public-encoder")
        files = {
            path.relative_to(encoder).as_posix(): path.read_bytes() for path in encoder.rglob("*") if path.is_file()
        }
        loopback.add("models", encoder_id, files | {"README.md": b"# An encoder", "training.bin": b"pickled"})
    folder = tmp_path / "pipeline"
    built = writer(
        "hub_steps:build_with_encoder",
        encoder=encoder_id if is_published else str(encoder),
        base=str(base),
        folder=str(folder),
        examples=str(tmp_path / "examples.parquet"),
    )
    place = built["parts"]["encoder"]
    assert ("repo_id" in place, (folder / "encoder").exists()) == (is_published, not is_published)
    expected = writer("hub_steps:behaviour", name=str(folder), inputs=INPUTS)
    writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    manifest = json.loads(loopback.repository("models", repo_id).commit("main").files["recross.json"].content)
    published = manifest["parts"]["encoder"]
    commit = loopback.repository("models", encoder_id).commit("main")
    assert (published["repo_id"], published["revision"]) == (encoder_id, commit.oid)
    if is_published:
        assert published == place
        assert ("models", f"{repo_id}-encoder") not in loopback.store.repositories
    else:
        assert '.encode(["an input of the task"], prompt="search: ")' in commit.files["README.md"].content.decode()
    found = reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS, token=False)
    assert without_fetched(found) == without_fetched(expected)
    # What was opened from the Hub names the encoder where it is, and so does what is published of that.
    again = named("encoded-again")
    writer("hub_steps:publish", pipeline=repo_id, repo_id=again)
    manifest = json.loads(loopback.repository("models", again).commit("main").files["recross.json"].content)
    assert manifest["parts"]["encoder"] == published


# ---- requests --------------------------------------------------------------------------------------------------------


def test_pinned_and_cached_asks_nothing_and_a_server_that_is_down_is_not_needed(
    loopback, writer, reader, lost, run_client, home, named, folder, behaviours
):
    repo_id = named("cached")
    commit = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)

    def behaviour(client, **access):
        return without_fetched(client("hub_steps:behaviour", name=repo_id, inputs=INPUTS, **access))

    assert behaviour(reader) == behaviours[0]
    loopback.requests.clear()
    assert behaviour(reader, revision=commit) == behaviours[0]
    assert not loopback.requests
    assert behaviour(reader) == behaviours[0]
    assert loopback.asked("HEAD", "GET", "POST") == [f"HEAD /{repo_id}/resolve/main/recross.json"]
    assert behaviour(lost) == behaviours[0]
    assert behaviour(lost, local_files_only=True) == behaviours[0]
    offline = run_client(home=home, offline=True)
    assert behaviour(offline) == behaviours[0]
    with pytest.raises(
        StepError, match=r"recross\.json of the model repository .*-gone is not in the cache, and HF_HUB_OFFLINE"
    ):
        offline("hub_steps:predict", name=f"{repo_id}-gone")
    with pytest.raises(StepError, match=r"recross\.json of the model repository .*-gone is not in the cache"):
        lost("hub_steps:predict", name=f"{repo_id}-gone", local_files_only=True)


@pytest.mark.slow
def test_folders_are_used_without_a_connection(folder, behaviours, examples, tmp_path):
    """With no token, with no setting that keeps libraries from asking or telling anybody anything."""
    environment = client_environment("", tmp_path / "home")
    for name in ("HF_ENDPOINT", "HF_HUB_DISABLE_TELEMETRY", "HF_UPDATE_DOWNLOAD_COUNTS", "HF_HUB_DISABLE_XET"):
        del environment[name]
    (tmp_path / "queries.txt").write_text("\n".join(INPUTS))
    examples.select(range(4)).to_json(tmp_path / "labelled.jsonl")
    with Client(environment, tmp_path) as client:
        client("hub_steps:refuse_connections")
        found = client(
            "hub_steps:use_a_folder",
            folder=str(folder),
            inputs=INPUTS,
            examples=str(EXAMPLES),
            queries=str(tmp_path / "queries.txt"),
            labelled=str(tmp_path / "labelled.jsonl"),
            scratch=str(tmp_path),
        )
        assert found == {"tried": [], "answers": behaviours[0]["answers"]}
        client("hub_steps:wait_no_longer")
        with pytest.raises(StepError, match=r"No connection to https://huggingface\.co"):  # what is tried is noticed
            client("hub_steps:predict", name="org/name")


# ---- errors ----------------------------------------------------------------------------------------------------------


def changed(**changes):
    return lambda content: json.dumps(json.loads(content) | changes).encode()


def test_each_trouble_has_an_error_of_its_own(loopback, writer, reader, named, folder, other_folder):
    repo_id = named("trouble")
    commit = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    other = named("other")
    writer("hub_steps:publish", pipeline=str(other_folder), repo_id=other)

    def refused(match, name=repo_id, step="predict", **access):
        with pytest.raises(StepError, match=match) as caught:
            reader(f"hub_steps:{step}", name=name, **{"token": False, **access})
        return caught.value.kinds[0]

    assert refused("There is no model repository org/gone at", name="org/gone") == "HubError"
    refused("Expected the folder of a pipeline, found none at no/such/folder", name="no/such/folder")
    refused("has no revision v9. Name a branch, a tag or a commit", revision="v9")
    refused("has no revision " + "0" * 40, revision="0" * 40)
    refused(f"There is no recross.json of the model repository {repo_id}-reranker", name=f"{repo_id}-reranker")
    assert (
        refused("asks for a valid token to read .* mistyped or has expired", token=loopback.invalid_token)
        == "HubError"
    )
    loopback.repository("models", repo_id).gated = True
    refused("is gated: its owners decide who reads it. Ask for access at")
    loopback.repository("models", repo_id).gated = False

    original = loopback.repository("models", repo_id).commit("main").files["recross.json"].content
    parts = json.loads(original)["parts"]
    wrong_index = parts["index"] | {"sha256": parts["index"]["sha256"] | {"gone.json": "0" * 64}}
    elsewhere = json.loads(loopback.repository("models", other).commit("main").files["recross.json"].content)["parts"]
    pickled = parts["upstream_model"] | {"sha256": {"pytorch_model.bin": "0" * 64}}
    for change, match, step in (
        (changed(format_version=3), r"pipeline of format 2, found 3 .*pip install -U recross_hf", "predict"),
        (
            changed(parts=parts | {"index": wrong_index}),
            r"There is no gone\.json of the dataset repository",
            "open_index",
        ),
        (changed(parts=parts | {"index": elsewhere["index"]}), r"was built with another encoder", "open_index"),
        (changed(parts=parts | {"upstream_model": pickled}), r"Pickles and code are never loaded", "predict"),
        (lambda content: content + b" " * (1 << 20), r"recross\.json of at most 1,048,576 bytes", "predict"),
        (lambda content: b"no json", r"Expected JSON in", "predict"),
    ):
        loopback.add("models", repo_id, {"recross.json": change(original)})
        refused(match, step=step)
    assert reader("hub_steps:predict", name=repo_id, revision=commit)


def test_code_of_its_own_is_refused(loopback, reader, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = copy / "upstream_model" / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModelForSeq2SeqLM": "modeling.Evil"}})
    )
    loopback.add("models", "org/evil", {
        path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()
    })  # fmt: skip
    with pytest.raises(
        StepError, match=r"config\.json of the model repository org/evil is what the Hub holds, and not what"
    ):
        reader("hub_steps:predict", name="org/evil")
    with pytest.raises(StepError, match=r"auto_map=.*asks for code from elsewhere.*never run"):
        reader("hub_steps:predict", name="org/evil", verify_checksums=False)


def test_wrong_bytes_are_named_and_fetched_anew(loopback, writer, reader, home, named, folder):
    repo_id = named("bytes")
    commit = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    digest = loopback.repository("datasets", f"{repo_id}-index").commit("main").files["index.faiss"].sha256
    for name, target in (("recross.json", "recross.json"), ("index.faiss", digest), ("index.json", "index.json")):
        loopback.fail("GET", target, WrongBytes())
        with pytest.raises(
            StepError, match=rf"{name} of the .* did not arrive as it was published: its checksum differs"
        ):
            reader("hub_steps:open_index", name=repo_id)
    assert reader.in_copy("hub_steps:open_index", name=repo_id, revision=commit) == 48
    # What changes in the cache is noticed as well.
    change_last_byte(blobs(home, f"{repo_id}-index")[digest])
    with pytest.raises(StepError, match=r"index\.faiss of the dataset repository .* was removed from the cache"):
        reader("hub_steps:open_index", name=repo_id, revision=commit)
    assert reader("hub_steps:open_index", name=repo_id, revision=commit) == 48


def change_last_byte(path):
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_large_file_is_verified_once_and_again_when_it_changes(
    loopback, writer, reader, home, named, tokenizer, examples, tmp_path
):
    repo_id, config = named("large"), tiny.bart(tokenizer).config
    config.max_position_embeddings = REMEMBERED_SIZE // 256  # in encoder and decoder; no text reaches the last of them
    large = BartForConditionalGeneration(config)
    ReCrossPipeline.build(large, tokenizer, examples, tmp_path / "large")
    commit = writer("hub_steps:publish", pipeline=str(tmp_path / "large"), repo_id=repo_id)
    expected = reader.in_copy("hub_steps:predict", name=repo_id)
    files = blobs(home, f"{repo_id}-upstream-model")
    digest = (
        loopback.repository("models", f"{repo_id}-upstream-model").commit("main").files["model.safetensors"].sha256
    )
    assert files[digest].stat().st_size >= REMEMBERED_SIZE
    record = home / "recross_hf" / "verified.json"
    remembered = json.loads(record.read_text())["files"]
    assert remembered[str(files[digest].resolve())]["sha256"] == digest
    assert not {str(path.resolve()) for name, path in files.items() if name != digest} & set(remembered)
    loopback.requests.clear()
    assert reader.in_copy("hub_steps:predict", name=repo_id, revision=commit) == expected
    assert json.loads(record.read_text())["files"] == remembered
    change_last_byte(files[digest])
    with pytest.raises(StepError, match=r"model\.safetensors of the model .* was removed from the cache"):
        reader.in_copy("hub_steps:predict", name=repo_id, revision=commit)
    assert not loopback.requests
    assert reader.in_copy("hub_steps:predict", name=repo_id, revision=commit) == expected
    assert loopback.asked("GET")


def test_a_download_that_breaks_off_leaves_nothing_half_written(loopback, writer, reader, home, named, folder):
    repo_id = named("cut")
    writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    weights = loopback.repository("models", f"{repo_id}-upstream-model").commit("main").files["model.safetensors"]
    loopback.fail("GET", weights.sha256, CutAnswer(1000), times=99)
    with reader.copy() as impatient:
        impatient("hub_steps:wait_no_longer")
        with pytest.raises(StepError, match=r"No connection to .* for model\.safetensors of the model repository"):
            impatient("hub_steps:predict", name=repo_id)
    assert weights.sha256 not in blobs(home, f"{repo_id}-upstream-model")
    loopback.mend()
    assert reader("hub_steps:predict", name=repo_id)


def test_no_network_and_no_cache_says_so_soon(lost):
    for revision in (None, "0" * 40):
        with pytest.raises(
            StepError, match=r"No connection to http://127\.0\.0\.1:9 for recross\.json .* not in the cache"
        ):
            lost("hub_steps:predict", name="org/name", revision=revision)
    assert lost("hub_steps:waited_for", name="org/name") == 0  # the client's own six tries wait 23 s
    with pytest.raises(StepError, match=r"No connection to http://127\.0\.0\.1:9 for .*Check the network"):
        lost("hub_steps:publish", repo_id="org/name", token="hf_x")


def test_who_may_not_publish_is_told(loopback, writer, named, folder):
    repo_id = named("forbidden")
    for token, match in (
        (False, rf"asks for a valid token to write to the model repository {repo_id}"),
        (loopback.invalid_token, r"asks for a valid token to write to .* mistyped or has expired"),
        (loopback.read_token, rf"may not write to the model repository {repo_id}-upstream-model"),
        (loopback.other_token, rf"may not write to the model repository {repo_id}-upstream-model"),
    ):
        with pytest.raises(StepError, match=match) as caught:
            writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id, token=token)
        assert "HubError" in caught.value.kinds
    assert not [name for _, name in loopback.store.repositories if name.startswith(repo_id)]


# ---- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["upstream-model", "index", ""])
def test_a_failure_half_way_leaves_the_old_pipeline_and_a_rerun_completes(
    part, loopback, writer, reader, named, folder, other_folder, behaviours
):
    repo_id = named("half")
    first = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    target = f"{repo_id}-{part}" if part else repo_id
    loopback.fail("POST", f"{target}/commit/", Status(500), times=99)
    with pytest.raises(StepError, match=r"The Hub answered 500 when asked for .* try again later"):
        writer("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
    loopback.mend()
    assert without_fetched(reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS)) == behaviours[0]
    assert loopback.repository("models", repo_id).commit("main").oid == first
    loopback.requests.clear()
    writer("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
    if part == "":  # all parts were there
        assert not loopback.asked("PUT")
    assert without_fetched(reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS)) == behaviours[1]


@pytest.mark.parametrize(
    ("fault", "method", "target", "lands"),
    [
        (OnReceipt, "POST", "-upstream-model.git/info/lfs/objects/batch", False),
        (OnArrival, "PUT", ".", False),
        (OnReceipt, "POST", "-upstream-model/commit/", False),
        (OnReceipt, "POST", "-index/preupload/", False),
        (OnReceipt, "POST", "-index/commit/", False),
        (OnReceipt, "POST", "/preupload/", False),
        (OnReceipt, "POST", "/commit/", True),
    ],
    ids=[
        "before a file",
        "amid a file",
        "after a part",
        "between parts",
        "after all parts",
        "before the end",
        "at the end",
    ],
)
def test_who_is_killed_publishing_breaks_nothing_and_a_rerun_completes(
    fault, method, target, lands, loopback, writer, reader, named, folder, other_folder, behaviours
):
    repo_id = named("killed")
    first = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    loopback.fail(method, target if method == "PUT" else repo_id + re.escape(target), fault(writer.kill))
    with pytest.raises(ClientGone):
        writer.in_copy("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
    loopback.settle()
    assert (loopback.repository("models", repo_id).commit("main").oid != first) == lands
    found = reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS)
    assert without_fetched(found) == behaviours[lands]
    loopback.requests.clear()
    second = writer("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
    assert loopback.repository("models", repo_id).commit("main").oid == second != first
    if lands:
        assert not [request for request in loopback.asked("POST") if "/commit/" in request]
    for revision, expected in ((None, behaviours[1]), (first, behaviours[0])):
        found = reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS, revision=revision)
        assert without_fetched(found) == expected


@pytest.mark.parametrize(
    ("fault", "part", "name"),
    [
        (OnReceipt, "", "recross.json"),
        (OnHalf, "-upstream-model", "model.safetensors"),
        (OnReceipt, "-upstream-model", "tokenizer.json"),
        (OnHalf, "-index", "index.faiss"),
        (OnHalf, "-index", "examples.parquet"),
        (OnReceipt, "-reranker", "config.json"),
    ],
)
def test_who_is_killed_fetching_breaks_nothing_and_a_rerun_completes(
    fault, part, name, loopback, writer, reader, named, folder, behaviours, tmp_path
):
    repo_id = named("killed")
    writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    file = loopback.repository("datasets" if part == "-index" else "models", repo_id + part).commit("main").files[name]
    asked_for = {"name": repo_id, "inputs": INPUTS, "cache_dir": str(tmp_path / "cache")}
    loopback.fail("GET", file.sha256 if file.large else f"{repo_id}{part}/resolve/.*/{name}", fault(reader.kill))
    with pytest.raises(ClientGone):
        reader.in_copy("hub_steps:behaviour", **asked_for)
    loopback.settle()
    assert without_fetched(reader("hub_steps:behaviour", **asked_for)) == behaviours[0]


# ---- training and examples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "reranker"])
def test_training_pushes_no_pickles(kind, loopback, writer, folder, tmp_path):
    repo_id = loopback.name(kind)
    writer.in_copy(
        "hub_steps:train_and_push", kind=kind, pipeline=str(folder), repo_id=repo_id, output_dir=str(tmp_path / "out")
    )
    history = loopback.repository("models", repo_id).history("main")
    assert len(history) > 3  # an empty one, each step and the end
    for commit in history:
        assert not [path for path in commit.files if path.endswith((".bin", ".pt", ".pth"))]
    assert {"model.safetensors", "training_args.json", "README.md"} <= set(history[0].files)


def test_the_examples_go_the_whole_round(loopback, writer, reader, named, tmp_path):
    namespace, name = loopback.user, named("round").split("/")[1]

    def run(example, *arguments, token=None):
        return writer.in_copy(
            "hub_steps:run_example",
            path=str(EXAMPLES / example),
            arguments=arguments,
            token=token,
            folder=str(tmp_path),
        )

    publish = ["--namespace", namespace, "--name", name]
    shown = run("publish.py", *publish, "--dry_run")
    assert not loopback.requests
    for path in [*STARTER_DIRECTORY.glob("*/*"), EXAMPLES / "soft_em_space" / "app.py"]:
        if path.parent.parent == STARTER_DIRECTORY and path.parent.name != "tasks":
            assert f"{path.stat().st_size:,}  {path.name}" in shown
    assert f"datasets/{namespace}/{name}-index" in shown and "    | library_name: recross_hf" in shown
    assert "    | # The starter of recross_hf" in shown and f'evaluate.load("{namespace}/soft_em")' in shown
    assert f"base_model: {namespace}/{name}-upstream-model" in shown and "this-namespace" not in shown
    run("publish.py", *publish, token=loopback.token)
    assert reader("hub_steps:soft_em", name=f"{namespace}/soft_em") == {"soft_em": 100.0, "exact_match": 0.0}
    queries = tmp_path / "queries.txt"
    queries.write_text("\n".join(load_starter_task("bus_stop")[0]["input"][:]))
    adapted = named("adapted")
    arguments = ["--pipeline", f"{namespace}/{name}", "--query_file", str(queries), "--use_peft", "--max_steps", "2"]
    arguments += ["--push_to_hub", "--hub_model_id", adapted, "--output_dir", str(tmp_path / "out")]
    shown = run("adapt.py", *arguments, token=loopback.token)
    assert f"Published: {loopback.endpoint}/{adapted}/commit/" in shown
    files = loopback.repository("models", adapted).commit("main").files
    assert f"base_model: {namespace}/{name}-upstream-model" in files["README.md"].content.decode()
    assert reader("hub_steps:predict", name=adapted)
    # The folder is a pipeline as well, which names the parts of the Hub and holds none of them.
    parts = json.loads((tmp_path / "out" / "recross.json").read_text())["parts"]
    places = {"upstream_model": "upstream-model", "index": "index", "reranker": "reranker"}
    assert {part: parts[part]["repo_id"] for part in places} == {
        part: f"{namespace}/{name}-{place}" for part, place in places.items()
    }
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert reader("hub_steps:predict", name=str(tmp_path / "out"))


def test_a_quiet_publication_shows_no_bar(loopback, writer, named):
    for name, quiet in (("loud", []), ("quiet", ["--quiet"])):
        words = ["--namespace", loopback.user, "--name", named(name).split("/")[1], "--no_metric", *quiet]
        told = writer.in_copy("hub_steps:told_by_publish", arguments=words, token=loopback.token)
        assert ("%|" in told) == (name == "loud")
    assert not told


def test_what_is_no_safe_format_is_not_published(tmp_path):
    with pytest.raises(ValueError, match=r"safe formats .*found training_args\.bin: pickles and other formats"):
        Publication("org/name", "model", {"training_args.bin": b"", "README.md": b""})
    assert Publication("org/name", "space", {"app.py": b"12"}).sizes == {"app.py": 2}


@pytest.mark.parametrize("content", [b"as announced", b"broken"])
def test_a_cached_file_goes_only_if_it_is_not_what_the_hub_announced(content, tmp_path):
    """A manifest may name any repository, and any checksum: it must not cost somebody a file that is sound."""
    blob = tmp_path / "blobs" / hashlib.sha256(b"as announced").hexdigest()
    link = tmp_path / "snapshots" / ("0" * 40) / "model.safetensors"
    for path in (blob, link):
        path.parent.mkdir(parents=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    is_sound = content == b"as announced"
    error = "is what the Hub holds, and not what the pipeline names" if is_sound else "It was removed from the cache"
    with pytest.raises(HubError, match=error):
        _check(link, Repository("org/name"), "model.safetensors", False)
    assert blob.exists() == link.exists() == is_sound


def _commit_that_is_noted(repo_id, revision=None):
    from recross_hf import load_model
    from recross_hf.core._compat import commit_of

    return commit_of(load_model(repo_id, revision=revision))


def test_a_model_that_is_loaded_by_name_knows_its_commit(loopback, run_client, bart, tmp_path):
    bart.save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    first = loopback.add("models", "org/by-name", files).oid
    second = loopback.add("models", "org/by-name", files | {"README.md": b"A model."}).oid
    client = run_client(loopback.token)
    assert client(_commit_that_is_noted, repo_id="org/by-name") == second != first
    assert client(_commit_that_is_noted, repo_id="org/by-name", revision=first) == first
