"""Pipelines, indexes and rerankers on a Hub, by its real clients; the steps are those of `hub_steps`."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from loopback_hub import ClientGone, CutAnswer, OnReceipt, Status, StepError, WrongBytes, client_environment

from recross_hf import CrossEncoderReranker, ReCrossPipeline, load_starter_task
from recross_hf.hub import HubError, Publication, Repository, _check
from recross_hf.starter import STARTER_DIRECTORY

EXAMPLES = Path(__file__).parents[1] / "examples"
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


@pytest.fixture
def named(hub):
    """Names a pipeline of its own, with its parts."""

    def name(name):
        repo_id = hub.name(name)
        hub.named.extend(f"{repo_id}-{part}" for part in ("upstream-model", "index", "reranker"))
        return repo_id

    return name


def asked(hub, *methods):
    return [f"{request.method} {request.target}" for request in hub.requests if request.method in methods]


def without(found, *names):
    return {name: value for name, value in found.items() if name not in names}


def blobs(home):
    return {path for path in (home / "hub").rglob("*") if path.parent.name == "blobs"}


# ---- there and back --------------------------------------------------------------------------------------------------


def test_the_starter_comes_back_bit_for_bit_from_a_fresh_cache(hub, run_client, named, tmp_path):
    repo_id = named("starter")
    inputs = load_starter_task("bus_stop")[0]["input"][:]
    writer = run_client(hub.token, home=tmp_path / "writer")
    commit = writer("hub_steps:publish", repo_id=repo_id)
    expected = writer("hub_steps:behaviour", inputs=inputs)
    reader = run_client(hub.token, home=tmp_path / "reader")
    for revision in (None, commit):
        found = reader("hub_steps:behaviour", name=repo_id, inputs=inputs, revision=revision)
        assert without(found, "fetched") == without(expected, "fetched")
        assert found["fetched"] == ["upstream_model"]
    assert len(set(found["answers"])) > 3 and found["scores"] is not None


def test_each_artifact_opens_with_its_plain_tool(hub, run_client, named, folder, examples):
    repo_id, client = named("plain"), run_client(hub.token)
    client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    parts = {name: f"{repo_id}-{name.replace('_', '-')}" for name in ("upstream_model", "index", "reranker")}
    assert client("hub_steps:open_plainly", repo_id=repo_id, parts=parts) == {
        "model": "BartForConditionalGeneration",
        "tokens": 3,
        "scores": 1,
        "examples": examples["id"][:],
        "attached": 48,
        "vectors": 48,
    }


def test_what_is_there_is_not_uploaded_again(loopback, run_client, named, folder):
    repo_id, client = named("again"), run_client(loopback.token)
    first = client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    loopback.requests.clear()
    assert client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id) == first
    posted = asked(loopback, "POST", "PUT")
    assert not [request for request in posted if "/commit/" in request or request.startswith("PUT")]


def test_a_pinned_pipeline_keeps_its_behaviour_after_newer_commits(
    hub, run_client, named, folder, other_folder, tmp_path
):
    repo_id, writer = named("pinned"), run_client(hub.token, home=tmp_path / "writer")
    first = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    second = writer("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
    assert first != second
    reader = run_client(hub.token, home=tmp_path / "reader")
    expected = [writer("hub_steps:behaviour", name=str(one), inputs=INPUTS) for one in (folder, other_folder)]
    for revision, behaviour in ((first, expected[0]), (None, expected[1]), (second, expected[1])):
        found = reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS, revision=revision)
        assert without(found, "fetched") == without(behaviour, "fetched")
    assert expected[0]["ids"] != expected[1]["ids"]


def test_a_branch_a_proposal_and_a_private_repository(loopback, run_client, named, folder, other_folder):
    repo_id, client = named("branches"), run_client(loopback.token)
    client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id, private=True)
    assert all(
        loopback.repository(kind, f"{repo_id}{part}").private
        for kind, part in (("models", ""), ("datasets", "-index"))
    )
    client("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id, revision="half")
    client("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id, create_pr=True)
    sizes = {
        revision: client("hub_steps:open_index", name=repo_id, revision=revision)
        for revision in (None, "half", "refs/pr/1")
    }
    assert sizes == {None: 48, "half": 24, "refs/pr/1": 24}
    stranger = run_client(loopback.other_token)
    with pytest.raises(
        StepError, match=rf"There is no model repository {repo_id} at .*or it is private and not yours"
    ):
        stranger("hub_steps:predict", name=repo_id, force_download=True)
    public = named("public")
    client("hub_steps:publish", pipeline=str(folder), repo_id=public)
    with pytest.raises(StepError, match=r"to be private, found it public. Change that in its settings"):
        client("hub_steps:publish", pipeline=str(folder), repo_id=public, private=True)


def test_files_of_an_older_version_go_and_others_stay(loopback, run_client, named, folder):
    repo_id, client = named("older"), run_client(loopback.token)
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
    client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    files = set(loopback.repository("models", part).commit("main").files)
    assert {"LICENSE", "notes.json", "model.safetensors", "README.md"} <= files
    assert not {"pytorch_model.bin", "model-00001-of-00002.safetensors"} & files


def test_an_index_and_a_reranker_have_names_of_their_own(hub, run_client, folder, tmp_path):
    index, reranker = hub.name("index"), hub.name("reranker")
    writer = run_client(hub.token, home=tmp_path / "writer")
    commits = [
        writer(f"hub_steps:push_{kind}", pipeline=str(folder), repo_id=repo_id)
        for kind, repo_id in (("index", index), ("reranker", reranker))
    ]
    reader = run_client(hub.token, home=tmp_path / "reader")
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


def test_a_repository_that_was_downloaded_as_a_folder_is_a_pipeline(hub, run_client, named, folder, tmp_path):
    repo_id, client = named("folder"), run_client(hub.token)
    client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    client("hub_steps:download", repo_id=repo_id, folder=str(tmp_path / "copy"))
    found = client("hub_steps:behaviour", name=str(tmp_path / "copy"), inputs=INPUTS)
    assert without(found, "fetched") == without(
        client("hub_steps:behaviour", name=str(folder), inputs=INPUTS), "fetched"
    )


# ---- adapting what is published --------------------------------------------------------------------------------------


@pytest.mark.parametrize("peft", [False, True], ids=["full", "lora"])
def test_an_adapted_pipeline_names_what_it_was_made_of(peft, loopback, run_client, named, folder, tmp_path):
    base, adapted = named("base"), named("adapted")
    writer = run_client(loopback.token, home=tmp_path / "writer")
    writer("hub_steps:publish", pipeline=str(folder), repo_id=base)
    expected = writer("hub_steps:adapt", name=base, peft=peft, inputs=INPUTS)
    loopback.requests.clear()
    writer("hub_steps:publish_adapted", name=base, peft=peft, repo_id=adapted)
    assert {target.split("/")[4] for target in asked(loopback, "POST") if "/commit/" in target} == {
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
    reader = run_client(home=tmp_path / "reader")
    found = reader("hub_steps:behaviour", name=adapted, inputs=INPUTS)
    assert {name: found[name] for name in expected} == expected
    assert found["fetched"] == (["adapted_model", "upstream_model"] if peft else ["adapted_model"])
    assert (
        reader("hub_steps:open_adapted_plainly", repo_id=adapted, peft=peft, text=INPUTS[0]) == expected["answers"][0]
    )


@pytest.mark.parametrize("peft", [False, True], ids=["full", "lora"])
def test_an_adapted_pipeline_of_a_folder_publishes_its_parts_as_well(peft, hub, run_client, named, folder, tmp_path):
    repo_id, writer = named("local"), run_client(hub.token, home=tmp_path / "writer")
    expected = writer("hub_steps:adapt", name=str(folder), peft=peft, inputs=INPUTS)
    writer("hub_steps:publish_adapted", name=str(folder), peft=peft, repo_id=repo_id)
    reader = run_client(hub.token, home=tmp_path / "reader")
    found = reader("hub_steps:behaviour", name=repo_id, inputs=INPUTS)
    assert {name: found[name] for name in expected} == expected
    assert found["scores"] is not None


# ---- requests --------------------------------------------------------------------------------------------------------


def test_pinned_and_cached_asks_nothing_and_a_server_that_is_down_is_not_needed(loopback, run_client, named, folder):
    repo_id, client = named("cached"), run_client(loopback.token)
    commit = client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    expected = client("hub_steps:behaviour", name=repo_id, inputs=INPUTS)
    loopback.requests.clear()
    again = run_client(loopback.token)
    assert again("hub_steps:behaviour", name=repo_id, inputs=INPUTS, revision=commit) == expected
    assert not loopback.requests
    assert again("hub_steps:behaviour", name=repo_id, inputs=INPUTS) == expected
    assert asked(loopback, "HEAD", "GET", "POST") == [f"HEAD /{repo_id}/resolve/main/recross.json"]
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    down = run_client(**nowhere)
    assert down("hub_steps:behaviour", name=repo_id, inputs=INPUTS) == expected
    assert down("hub_steps:behaviour", name=repo_id, inputs=INPUTS, local_files_only=True) == expected
    offline = run_client(offline=True)
    assert offline("hub_steps:behaviour", name=repo_id, inputs=INPUTS) == expected
    with pytest.raises(
        StepError, match=r"recross\.json of the model repository .*-gone is not in the cache, and HF_HUB_OFFLINE"
    ):
        offline("hub_steps:predict", name=f"{repo_id}-gone")
    with pytest.raises(StepError, match=r"is not in the cache, and `local_files_only=True` forbids to fetch it"):
        again("hub_steps:predict", name=f"{repo_id}-gone", local_files_only=True)


def test_local_folders_ask_nothing(loopback, run_client, folder, tmp_path):
    client = run_client(loopback.token)
    client("hub_steps:behaviour", name=str(folder), inputs=INPUTS)
    for peft in (False, True):
        client("hub_steps:adapt", name=str(folder), peft=peft, inputs=INPUTS)
    client("hub_steps:pull_reranker", repo_id=str(folder / "reranker"))
    sizes = client("hub_steps:planned", pipeline=str(folder), repo_id="org/name", scratch=str(tmp_path))
    assert list(sizes) == ["org/name-upstream-model", "org/name-index", "org/name-reranker", "org/name"]
    assert not loopback.requests


# ---- errors ----------------------------------------------------------------------------------------------------------


def changed(**changes):
    return lambda content: json.dumps(json.loads(content) | changes).encode()


def test_each_trouble_has_an_error_of_its_own(loopback, run_client, named, folder, other_folder, tmp_path):
    repo_id, writer = named("trouble"), run_client(loopback.token, home=tmp_path / "writer")
    commit = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    other = named("other")
    writer("hub_steps:publish", pipeline=str(other_folder), repo_id=other)
    client = run_client()

    def refused(match, name=repo_id, step="predict", **access):
        with pytest.raises(StepError, match=match) as caught:
            client(f"hub_steps:{step}", name=name, **access)
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
    assert client("hub_steps:predict", name=repo_id, revision=commit)


def test_code_of_its_own_is_refused(loopback, run_client, named, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = copy / "upstream_model" / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModelForSeq2SeqLM": "modeling.Evil"}})
    )
    loopback.add("models", "org/evil", {
        path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()
    })  # fmt: skip
    client = run_client()
    with pytest.raises(
        StepError, match=r"config\.json of the model repository org/evil is what the Hub holds, and not what"
    ):
        client("hub_steps:predict", name="org/evil")
    with pytest.raises(StepError, match=r"auto_map=.*asks for code from elsewhere.*never run"):
        client("hub_steps:predict", name="org/evil", verify_checksums=False)


def test_wrong_bytes_are_named_and_fetched_anew(loopback, run_client, named, folder, tmp_path):
    repo_id, writer = named("bytes"), run_client(loopback.token, home=tmp_path / "writer")
    commit = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    client = run_client()
    digest = loopback.repository("datasets", f"{repo_id}-index").commit("main").files["index.faiss"].sha256
    for name, target in (("recross.json", "recross.json"), ("index.faiss", digest), ("index.json", "index.json")):
        loopback.fail("GET", target, WrongBytes())
        with pytest.raises(
            StepError, match=rf"{name} of the .* did not arrive as it was published: its checksum differs"
        ):
            client("hub_steps:open_index", name=repo_id)
    assert client("hub_steps:open_index", name=repo_id, revision=commit) == 48
    # What changes in the cache is noticed as well.
    (blob,) = [path for path in blobs(tmp_path / "home") if path.name == digest]
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    fresh = run_client()
    with pytest.raises(StepError, match=r"index\.faiss of the dataset repository .* was removed from the cache"):
        fresh("hub_steps:open_index", name=repo_id, revision=commit)
    assert fresh("hub_steps:open_index", name=repo_id, revision=commit) == 48


def test_a_download_that_breaks_off_leaves_nothing_half_written(loopback, run_client, named, folder, tmp_path):
    repo_id, writer = named("cut"), run_client(loopback.token, home=tmp_path / "writer")
    writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    weights = loopback.repository("models", f"{repo_id}-upstream-model").commit("main").files["model.safetensors"]
    client = run_client()
    loopback.fail("GET", weights.sha256, CutAnswer(1000), times=99)
    with pytest.raises(StepError, match=r"No connection to .* for model\.safetensors of the model repository"):
        client("hub_steps:predict", name=repo_id)
    assert weights.sha256 not in {path.name for path in blobs(tmp_path / "home")}
    loopback.mend()
    assert client("hub_steps:predict", name=repo_id)


def test_no_network_and_no_cache_says_so(run_client):
    client = run_client(HF_ENDPOINT="http://127.0.0.1:9")
    with pytest.raises(
        StepError, match=r"No connection to http://127\.0\.0\.1:9 for recross\.json .* not in the cache"
    ):
        client("hub_steps:predict", name="org/name")
    with pytest.raises(StepError, match=r"No connection to http://127\.0\.0\.1:9 for .*Check the network"):
        client("hub_steps:publish", repo_id="org/name", token="hf_x")


def test_who_may_not_publish_is_told(loopback, run_client, named, folder):
    repo_id, client = named("forbidden"), run_client()
    for token, match in (
        (False, rf"asks for a valid token to write to the model repository {repo_id}"),
        (loopback.invalid_token, r"asks for a valid token to write to .* mistyped or has expired"),
        (loopback.read_token, rf"may not write to the model repository {repo_id}-upstream-model"),
        (loopback.other_token, rf"may not write to the model repository {repo_id}-upstream-model"),
    ):
        with pytest.raises(StepError, match=match) as caught:
            client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id, token=token)
        assert "HubError" in caught.value.kinds
    assert not [name for _, name in loopback.store.repositories if name.startswith(repo_id)]


@pytest.mark.parametrize("part", ["upstream-model", "index", ""])
def test_a_failure_half_way_leaves_the_old_pipeline_and_a_rerun_completes(
    part, loopback, run_client, named, folder, other_folder, tmp_path
):
    repo_id, client = named("half"), run_client(loopback.token)
    first = client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    target = f"{repo_id}-{part}" if part else repo_id
    loopback.fail("POST", f"{target}/commit/", Status(500), times=99)
    with pytest.raises(StepError, match=r"The Hub answered 500 when asked for .* try again later"):
        client("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
    loopback.mend()
    reader = run_client(home=tmp_path / "reader")
    assert reader("hub_steps:open_index", name=repo_id) == 48
    assert loopback.repository("models", repo_id).commit("main").oid == first
    loopback.requests.clear()
    client("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
    if part == "":  # all parts were there
        assert not asked(loopback, "PUT")
    assert reader("hub_steps:open_index", name=repo_id) == 24


def test_who_is_killed_at_any_point_breaks_nothing_and_a_rerun_completes(
    loopback, run_client, named, folder, other_folder, tmp_path
):
    repo_id, writer = named("killed"), run_client(loopback.token)
    first = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    expected = writer("hub_steps:open_index", name=str(folder))
    for method, target in (("PUT", "."), ("POST", f"{repo_id}-index/commit/"), ("POST", f"{repo_id}/preupload/")):
        victim = run_client(loopback.token)
        loopback.fail(method, target, OnReceipt(victim.kill))
        with pytest.raises(ClientGone):
            victim("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
        assert writer("hub_steps:open_index", name=repo_id, force_download=True) == expected
    assert loopback.repository("models", repo_id).commit("main").oid == first
    home = tmp_path / "reader"
    for name in ("recross.json", "tokenizer.json", "index.json"):
        victim = run_client(home=home)
        loopback.fail("GET", name, OnReceipt(victim.kill))
        with pytest.raises(ClientGone):
            victim("hub_steps:open_index", name=repo_id)
    assert run_client(home=home)("hub_steps:open_index", name=repo_id) == expected
    writer("hub_steps:publish", pipeline=str(other_folder), repo_id=repo_id)
    assert run_client(home=home)("hub_steps:open_index", name=repo_id) == 24


# ---- training and examples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "reranker"])
def test_training_pushes_no_pickles(kind, loopback, run_client, folder, tmp_path):
    repo_id = loopback.name(kind)
    run_client(loopback.token)(
        "hub_steps:train_and_push", kind=kind, pipeline=str(folder), repo_id=repo_id, output_dir=str(tmp_path / "out")
    )
    history = loopback.repository("models", repo_id).history("main")
    assert len(history) > 3  # an empty one, each step and the end
    for commit in history:
        assert not [path for path in commit.files if path.endswith((".bin", ".pt", ".pth"))]
    assert {"model.safetensors", "training_args.json", "README.md"} <= set(history[0].files)


def run_example(name, hub, home, *arguments, token=None):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=client_environment(hub.endpoint, home, token) | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        cwd=home,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def load_metric(name):
    import evaluate

    return evaluate.load(name).compute(predictions=["The answer is B."], references=[["B", "option B"]])


def test_the_examples_go_the_whole_round(loopback, run_client, named, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    namespace, name = loopback.user, named("round").split("/")[1]
    publish = ["--namespace", namespace, "--name", name]
    shown = run_example("publish.py", loopback, home, *publish, "--dry_run")
    assert not loopback.requests
    for path in [*STARTER_DIRECTORY.glob("*/*"), EXAMPLES / "soft_em_space" / "app.py"]:
        if path.parent.parent == STARTER_DIRECTORY and path.parent.name != "tasks":
            assert f"{path.stat().st_size:,}  {path.name}" in shown
    assert f"datasets/{namespace}/{name}-index" in shown and "    | library_name: recross_hf" in shown
    assert "    | # The starter of recross_hf" in shown and f'evaluate.load("{namespace}/soft_em")' in shown
    assert f"base_model: {namespace}/{name}-upstream-model" in shown and "this-namespace" not in shown
    run_example("publish.py", loopback, home, *publish, token=loopback.token)
    client = run_client(home=tmp_path / "reader")
    assert client(load_metric, name=f"{namespace}/soft_em") == {"soft_em": 100.0, "exact_match": 0.0}
    queries = home / "queries.txt"
    queries.write_text("\n".join(load_starter_task("bus_stop")[0]["input"][:]))
    adapted = named("adapted")
    arguments = ["--pipeline", f"{namespace}/{name}", "--query_file", str(queries), "--use_peft", "--max_steps", "2"]
    arguments += ["--push_to_hub", "--hub_model_id", adapted, "--output_dir", str(home / "out")]
    shown = run_example("adapt.py", loopback, home, *arguments, token=loopback.token)
    assert f"Published: {loopback.endpoint}/{adapted}/commit/" in shown
    files = loopback.repository("models", adapted).commit("main").files
    assert f"base_model: {namespace}/{name}-upstream-model" in files["README.md"].content.decode()
    assert client("hub_steps:predict", name=adapted)


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
