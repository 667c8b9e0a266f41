"""What can go wrong between a pipeline and a Hub, and what is made sure before that; the steps are those of `hub_steps`."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
import torch
from contents import content_of
from loopback_hub import CutAnswer, OnArrival, OnReceipt, Status, StepError, WrongBytes, client_environment
from loopback_hub.faults import Fault

from recross_hf import CrossEncoderReranker, ExampleTrainer, ExampleTrainingArguments, ReCrossPipeline
from recross_hf.hub.errors import ArtifactError
from recross_hf.hub.repository import HubAccess
from recross_hf.pipeline import saving
from recross_hf.pipeline.saving import save_reranker
from recross_hf.pipeline.stored_parts import StoredParts

TESTS = Path(__file__).parents[1]
EXAMPLES = TESTS.parent / "examples"


@pytest.fixture(scope="module")
def folder(answering_bart, tokenizer, examples, tmp_path_factory):
    """A small pipeline with a reranker."""
    folder = tmp_path_factory.mktemp("saved") / "small"
    built = ReCrossPipeline.build(
        answering_bart, tokenizer, examples, folder, adaptation={"max_input_length": 64, "max_target_length": 8}
    )
    built.reranker = reranker()
    built.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """Of the small pipeline, to be changed."""
    ReCrossPipeline.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    return tmp_path / "copy"


def reranker(shift=0.0):
    """Whose scores are shifted."""
    tokenizer = tiny.pair_tokenizer()
    model = tiny.cross_encoder(tokenizer)
    with torch.no_grad():
        model.classifier.out_proj.bias.add_(shift)
    return CrossEncoderReranker(model, tokenizer, max_length=50)


# ---- before a byte is fetched ----------------------------------------------------------------------------------------


def test_what_is_too_large_is_not_fetched(loopback, run_client, folder):
    client = run_client()
    files = content_of(folder)
    large = b" " * (129 << 20)
    loopback.add("models", "org/large-manifest", files | {"recross.json": b" " * (1 << 20) + b"{}"})
    loopback.add("models", "org/large-config", files | {"upstream_model/config.json": large})
    loopback.add("models", "org/large-reranker", {"model.safetensors": b"", "config.json": large})
    for name, limit, step in (
        ("org/large-manifest", "recross.json of at most 1,048,576 bytes", "hub_steps:predict"),
        ("org/large-config", "upstream_model/config.json of at most 134,217,728 bytes", "hub_steps:predict"),
        ("org/large-reranker", "config.json of at most 134,217,728 bytes", "hub_steps:pull_reranker"),
    ):
        loopback.requests.clear()
        with pytest.raises(StepError, match=rf"Expected {limit} in the model repository {name}, found .* not fetched"):
            client(step, **({"repo_id": name} if step.endswith("reranker") else {"name": name}))
        assert not [request for request in loopback.asked("GET") if request.endswith(("config.json", "large/recross"))]
    assert not [request for request in loopback.asked("GET") if "/resolve/" in request]


def test_a_cache_in_part_says_what_is_missing(loopback, run_client, folder):
    repo_id, client = loopback.name("part"), run_client(loopback.token)
    client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    reader = run_client()
    assert reader("hub_steps:predict", name=repo_id)
    with pytest.raises(
        StepError,
        match=rf"examples\.parquet of the dataset repository {repo_id}-index at .* is not in the cache, and `local_files_only=True`",
    ):
        reader("hub_steps:open_index", name=repo_id, local_files_only=True)
    loopback.fail("GET", "tokenizer.json", WrongBytes())
    with pytest.raises(StepError, match=r"tokenizer\.json of .* did not arrive as it was published"):
        reader("hub_steps:pull_reranker", repo_id=f"{repo_id}-reranker")
    with pytest.raises(
        StepError,
        match=rf"{repo_id}-reranker is in the cache in part: 1 file\(s\) are missing \(tokenizer\.json\), and `local_files_only",
    ):
        reader("hub_steps:pull_reranker", repo_id=f"{repo_id}-reranker", local_files_only=True)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_cache_without_links_is_compared_with_what_the_hub_says(name, loopback, run_client, folder, tmp_path):
    repo_id, writer = loopback.name("links"), run_client(loopback.token)
    writer("hub_steps:push_reranker", pipeline=str(folder), repo_id=repo_id)
    weights = loopback.repository("models", repo_id).commit("main").files["model.safetensors"].sha256
    client = run_client(HF_HUB_DISABLE_SYMLINKS="1", home=tmp_path / "plain")
    loopback.fail("GET", weights if name == "model.safetensors" else name, WrongBytes())
    with pytest.raises(
        StepError, match=rf"{name} of the model repository {repo_id} did not arrive as it was published"
    ):
        client("hub_steps:pull_reranker", repo_id=repo_id)
    assert client("hub_steps:pull_reranker", repo_id=repo_id) == writer("hub_steps:pull_reranker", repo_id=repo_id)
    assert not [path for path in (tmp_path / "plain").rglob("*") if path.is_symlink()]


# ---- what a commit holds ---------------------------------------------------------------------------------------------


class Ignores(Fault):
    """The Hub says that it leaves every file out."""

    def changed(self, body):
        return body.replace(b'"shouldIgnore": false', b'"shouldIgnore": true ')


def test_a_repository_that_leaves_files_out_gets_them_all_the_same(loopback, run_client, folder):
    repo_id, client = loopback.name("ignored"), run_client(loopback.token)
    loopback.add("models", repo_id, {".gitignore": b"*.json\n*.safetensors\n"})
    loopback.add("models", f"{repo_id}-upstream-model", {".gitignore": b"*.json\n*.safetensors\n"})
    client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    assert client("hub_steps:predict", name=repo_id) == client("hub_steps:predict", name=str(folder))


def test_a_commit_without_a_file_is_an_error(loopback, run_client, folder):
    repo_id, client = loopback.name("left-out"), run_client(loopback.token)
    loopback.fail("POST", f"{repo_id}-index/preupload/", Ignores(), times=9)
    with pytest.raises(
        StepError,
        match=rf"Expected the dataset repository {repo_id}-index to hold at \w+ .* index\.faiss.* missing or",
    ):
        client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    assert ("models", repo_id) not in loopback.store.repositories


def push_proposed(pipeline, repo_id, scratch):
    from pathlib import Path

    from recross_hf import ReCrossPipeline

    planned = ReCrossPipeline.from_pretrained(pipeline).publication(repo_id, Path(scratch))
    return [commit.pr_url for commit in planned.push(create_pr=True)]


def test_every_proposed_commit_is_told_of_and_loads(loopback, run_client, folder, tmp_path):
    repo_id, client = loopback.name("proposed"), run_client(loopback.token)
    found = client(push_proposed, pipeline=str(folder), repo_id=repo_id, scratch=str(tmp_path))
    assert found == [
        f"{loopback.endpoint}/{place}/discussions/1"
        for place in (f"{repo_id}-upstream-model", f"datasets/{repo_id}-index", f"{repo_id}-reranker", repo_id)
    ]
    assert client("hub_steps:open_index", name=repo_id, revision="refs/pr/1") == 48


# ---- who may read and write ------------------------------------------------------------------------------------------


def test_a_public_pipeline_names_no_private_parts(loopback, run_client, folder):
    base, adapted, client = loopback.name("base"), loopback.name("adapted"), run_client(loopback.token)
    client("hub_steps:publish", pipeline=str(folder), repo_id=base)
    index = loopback.repository("datasets", f"{base}-index")
    index.private = True
    loopback.requests.clear()
    with pytest.raises(
        StepError,
        match=rf"for the model repository {adapted} is public, found the dataset repository {base}-index private: nobody else",
    ):
        client("hub_steps:publish", pipeline=base, repo_id=adapted)
    assert not loopback.asked("POST", "PUT")
    client("hub_steps:publish", pipeline=base, repo_id=adapted, private=True)
    assert loopback.repository("models", adapted).private


def test_that_a_part_is_public_is_found_before_the_first_commit(loopback, run_client, folder):
    repo_id, client = loopback.name("half"), run_client(loopback.token)
    loopback.add("models", f"{repo_id}-reranker", {"a.txt": b"a"})
    with pytest.raises(
        StepError, match=rf"Expected the model repository {repo_id}-reranker to be private, found it pub"
    ):
        client("hub_steps:publish", pipeline=str(folder), repo_id=repo_id, private=True)
    assert [name for _, name in loopback.store.repositories if name.startswith(repo_id)] == [f"{repo_id}-reranker"]


@pytest.mark.parametrize("case", ["a token to read", "somebody else's repository"])
def test_who_may_not_publish_is_told_before_training(case, loopback, run_client, tmp_path):
    repo_id = loopback.name("before")
    if case == "a token to read":
        token, match = loopback.read_token, f"may not write to the model repository {repo_id}"
    else:
        loopback.add("models", repo_id, {"a.txt": b"a"})
        token, match = loopback.other_token, f"may not write to the model repository {repo_id}"
    arguments = ["--push_to_hub", "--hub_model_id", repo_id, "--max_steps", "1", "--debug"]
    with pytest.raises(StepError, match=match):
        run_client()("hub_steps:run_example", path=str(EXAMPLES / "adapt.py"), arguments=arguments, token=token)
    assert not (tmp_path / "adapted" / "model.safetensors").exists()


CHECK = "recross_hf.hub.publishing:check_may_publish"


def test_a_hub_that_cannot_say_who_may_write_is_believed(loopback, run_client, folder):
    repo_id, client = loopback.name("unasked"), run_client(loopback.token)
    loopback.fail("GET", "/auth-check/write", Status(404), times=9)
    assert client(CHECK, repo_id=repo_id) == repo_id
    client("hub_steps:push_reranker", pipeline=str(folder), repo_id=repo_id)
    assert "model.safetensors" in loopback.repository("models", repo_id).commit("main").files


def test_what_could_not_be_published_leaves_no_empty_repository(loopback, run_client, folder):
    repo_id, client = loopback.name("empty"), run_client(loopback.token)
    push = {"pipeline": str(folder), "repo_id": repo_id}
    for method, target, status in (
        ("POST", "/commit/", 500),
        ("POST", "/preupload/", 403),
        ("GET", "/revision/", 500),
    ):
        loopback.fail(method, repo_id + target, Status(status), times=9)
        with pytest.raises(StepError, match=r"The Hub answered 500|may not write"):
            client("hub_steps:push_reranker", **push, revision="half" if method == "GET" else None)
        loopback.mend()
        assert ("models", repo_id) not in loopback.store.repositories
    loopback.fail("GET", "/auth-check/write", Status(403))
    with pytest.raises(StepError, match=f"The token may not write to the model repository {repo_id}"):
        client(CHECK, repo_id=repo_id)
    assert ("models", repo_id) not in loopback.store.repositories


def test_a_repository_that_was_there_or_is_not_empty_stays(loopback, run_client, folder):
    repo_id, client = loopback.name("there"), run_client(loopback.token)
    loopback.store.create("models", repo_id)
    loopback.fail("POST", "/commit/", Status(500), times=9)
    with pytest.raises(StepError, match="The Hub answered 500"):
        client("hub_steps:push_reranker", pipeline=str(folder), repo_id=repo_id)
    loopback.mend()
    assert len(loopback.repository("models", repo_id).history("main")) == 1
    # The commit lands, and its answer is lost: on the main branch, and as a proposal.
    for number, create_pr in enumerate((False, True)):
        loopback.fail("POST", "/commit/", CutAnswer(0))
        with pytest.raises(StepError, match="No connection"):
            client("hub_steps:push_reranker", pipeline=str(folder), repo_id=f"{repo_id}-{number}", create_pr=create_pr)
        loopback.mend()
        revision = "refs/pr/1" if create_pr else "main"
        assert "model.safetensors" in loopback.repository("models", f"{repo_id}-{number}").commit(revision).files


def test_a_repository_that_was_made_to_ask_is_gone_until_there_is_something_to_publish(loopback, run_client, folder):
    repo_id, client = loopback.name("asked"), run_client(loopback.token)
    assert client(CHECK, repo_id=repo_id) == repo_id
    assert ("models", repo_id) not in loopback.store.repositories
    loopback.add("models", f"{repo_id}-there", {"a.txt": b"a"})
    assert client(CHECK, repo_id=f"{repo_id}-there")
    assert ("models", f"{repo_id}-there") in loopback.store.repositories


# ---- names, revisions and answers that are none ------------------------------------------------------------------------


def opened_index(name, **access):
    """An index is looked for before its encoder is."""
    from recross_hf import UpstreamIndex

    return UpstreamIndex.from_pretrained(name, encoder=None, **access)


def opened_model(name, **access):
    from recross_hf.models.loading import load_model

    return load_model(name, **access)


def read_examples(name, **access):
    from recross_hf import load_examples

    return load_examples(name, **access)


MEANT = [
    *(
        "https://huggingface.co/org/name",
        "http://127.0.0.1/datasets/org/name/tree/main",
        "hf://datasets/org/name",
        "org/name.git",
    ),
    *("datasets/org/name", " org/name", "org/name@main"),
]


@pytest.mark.parametrize("name", MEANT)
def test_an_address_in_place_of_a_name_says_the_name(name, loopback, run_client, folder):
    client = run_client(loopback.token)
    opens = ["hub_steps:predict", opened_index, opened_model, read_examples]
    pushes = [("hub_steps:push_reranker", {"pipeline": str(folder)}), (CHECK, {})]
    for step, arguments in [
        *((step, {"name": name}) for step in opens),
        ("hub_steps:pull_reranker", {"repo_id": name}),
        *((step, {"repo_id": name, **arguments}) for step, arguments in pushes),
    ]:
        with pytest.raises(
            StepError, match=r"(FileNotFoundError|HubError): .*Pass 'org/name', without anything around it"
        ):
            client(step, **arguments)
    assert not loopback.requests


def test_revisions_and_names_that_are_none_are_refused(loopback, run_client, folder):
    client = run_client(loopback.token)
    for step, argument in (
        ("hub_steps:predict", "name"),
        (opened_index, "name"),
        (opened_model, "name"),
        ("hub_steps:pull_reranker", "repo_id"),
    ):
        for revision in ("", 3):
            with pytest.raises(
                StepError, match=f"ValueError: Expected `revision` to be a branch, .*found {revision!r}"
            ):
                client(step, **{argument: "org/name"}, revision=revision)
        with pytest.raises(StepError, match=r"(FileNotFoundError|OSError): Expected|Repo id must use"):
            client(step, **{argument: ""})
    push = {"pipeline": str(folder), "repo_id": loopback.name("revised")}
    with pytest.raises(StepError, match="HubError: Expected a branch to write to, found the commit 0000"):
        client("hub_steps:push_reranker", **push, revision="0" * 40)
    with pytest.raises(StepError, match="ValueError: Expected `revision` to be a branch"):
        client("hub_steps:push_reranker", **push, revision="")
    assert not loopback.requests


def test_a_repository_of_something_else_is_no_index(loopback, run_client):
    repo_id = loopback.name("csv")
    loopback.add("datasets", repo_id, {"train.csv": b"input,references\na,b\n"})
    with pytest.raises(
        StepError, match=rf"HubError: Expected files in safe formats .* root of the dataset repository {repo_id}"
    ):
        run_client(loopback.token)(opened_index, name=repo_id)


class Page(Fault):
    """The answer of a proxy, or of a hotel."""

    def changed(self, body):
        return b"<html>Please log in</html>".ljust(len(body))[: len(body)]


def test_a_page_in_place_of_an_answer_is_told(loopback, run_client, folder):
    repo_id, client = loopback.name("page"), run_client(loopback.token)
    for number, (method, target) in enumerate(
        (("POST", "/repos/create"), ("POST", "/preupload/"), ("GET", "/api/models/"))
    ):
        loopback.fail(method, target, Page(), times=9)
        with pytest.raises(StepError, match=r"HubError: Expected an answer of a Hub .*such as the page of a proxy"):
            client("hub_steps:push_reranker", pipeline=str(folder), repo_id=f"{repo_id}-{number}")
        loopback.mend()
    client("hub_steps:push_reranker", pipeline=str(folder), repo_id=repo_id)
    loopback.fail("GET", "/api/models/", Page(), times=9)
    with pytest.raises(StepError, match=r"HubError: Expected an answer of a Hub .*such as the page of a proxy"):
        run_client()("hub_steps:pull_reranker", repo_id=repo_id)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Status(429, {"Retry-After": "77"}), r"asked too often, .*\(429\)\. Wait 77 seconds"),
        (Status(429), r"Wait some minutes"),
        (Status(409), "Somebody else wrote to"),
    ],
    ids=["429", "429 without a time", "409"],
)
def test_a_hub_that_refuses_to_make_a_repository_says_why(fault, message, loopback, run_client):
    loopback.fail("POST", "/repos/create", fault, times=9)
    with pytest.raises(StepError, match=f"HubError: .*{message}"):
        run_client(loopback.token)(CHECK, repo_id=loopback.name("refused"))


def test_a_file_that_is_too_large_for_the_hub_is_told(loopback, run_client, folder):
    loopback.fail("POST", "/commit/", Status(413), times=9)
    with pytest.raises(StepError, match="HubError: The Hub takes no file as large as one of"):
        run_client(loopback.token)("hub_steps:push_reranker", pipeline=str(folder), repo_id=loopback.name("large"))


def check_with(token, repo_id):
    from recross_hf.hub.publishing import check_may_publish

    return check_may_publish(repo_id, token=token)


def test_a_token_with_letters_that_no_token_has_is_told(loopback, run_client):
    with pytest.raises(StepError, match="HubError: Expected a token of plain letters and digits"):
        run_client()(check_with, token="hf_wr\u00efte", repo_id=loopback.name("letters"))


def check_impatiently(repo_id):
    import recross_hf.hub.errors
    from recross_hf.hub.publishing import check_may_publish

    recross_hf.hub.errors.WAITS = (0.5, 0.5, 0.5, None)
    return check_may_publish(repo_id)


def test_a_hub_that_never_answers_is_not_waited_for(loopback, run_client):
    answered = threading.Event()
    loopback.fail("POST", "/repos/create", OnArrival(lambda: answered.wait(20)), times=9)
    client, start = run_client(loopback.token), time.monotonic()
    with pytest.raises(StepError, match=r"HubError: No connection to .*Check the network and try again"):
        client(check_impatiently, repo_id=loopback.name("silent"))
    assert time.monotonic() - start < 15
    answered.set()


def publish_and_train_with(token, pipeline, repo_id, trained_id, output_dir):
    from recross_hf import ExampleTrainer, ExampleTrainingArguments, ReCrossPipeline, load_examples

    ReCrossPipeline.from_pretrained(pipeline).push_to_hub(repo_id, token=token, private=True)
    loaded = ReCrossPipeline.from_pretrained(repo_id, token=token)
    settings = {"push_to_hub": True, "hub_model_id": trained_id, "hub_token": token, "output_dir": output_dir}
    settings |= {"max_steps": 2, "save_steps": 1, "save_strategy": "steps", "report_to": "none", "use_cpu": True}
    trainer = ExampleTrainer(
        loaded.upstream_model,
        ExampleTrainingArguments(**settings),
        train_dataset=load_examples(loaded.index.dataset),
        processing_class=loaded.processing_class,
    )
    trainer.train()
    trainer.push_to_hub()


def test_a_token_is_written_nowhere(loopback, run_client, folder, tmp_path):
    client = run_client()
    client(
        publish_and_train_with,
        token=loopback.token,
        pipeline=str(folder),
        repo_id=loopback.name("secret"),
        trained_id=loopback.name("trained"),
        output_dir=str(tmp_path / "out"),
    )
    assert (tmp_path / "out" / "checkpoint-1" / "optimizer.pt").is_file()
    places = [path for path, content in content_of(tmp_path).items() if loopback.token.encode() in content]
    assert not places
    assert "hf_" not in repr(HubAccess(token="hf_secret"))


# ---- several processes -----------------------------------------------------------------------------------------------


def by_torchrun(hub, run_client, home, name):
    environment = client_environment(hub.endpoint, home) | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, TESTS / "hub_script.py", name],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def by_clients(hub, run_client, home, name):
    """Two clients with the variables that `torchrun` sets."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    clients = [run_client(home=home, RANK=str(rank), LOCAL_RANK=str(rank), **group) for rank in range(2)]
    script = {"path": str(TESTS / "hub_script.py"), "arguments": [name], "folder": str(home)}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda client: client("hub_steps:run_example", **script), clients))


@pytest.mark.parametrize("run", [by_clients, pytest.param(by_torchrun, marks=pytest.mark.slow)])
def test_all_processes_load_one_version_and_none_waits_for_one_that_failed(
    run, loopback, run_client, folder, tmp_path
):
    def in_two_processes(name):
        """What each of two processes says of a pipeline that they load."""
        run(loopback, run_client, tmp_path, name)
        return [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]

    repo_id, writer = loopback.name("ranks"), run_client(loopback.token)
    first = writer("hub_steps:publish", pipeline=str(folder), repo_id=repo_id)
    push = OnReceipt(lambda: loopback.add("models", repo_id, {"notes.txt": os.urandom(8)}))
    loopback.fail("GET", "/resolve/", push, times=3)  # somebody publishes whenever a file is fetched
    assert in_two_processes(repo_id) == [first, first]
    loopback.mend()
    for said in in_two_processes("org/gone"):
        assert said.startswith("HubError: There is no model repository org/gone")


# ---- adapters --------------------------------------------------------------------------------------------------------


def adapt_and_save(name, saved, published):
    import json
    from pathlib import Path

    import hub_steps

    pipeline = hub_steps.adapted(name, True)
    pipeline.save_pretrained(saved)
    config = json.loads((Path(saved) / "adapted_model" / "adapter_config.json").read_text())
    pipeline.push_to_hub(published)
    return config["base_model_name_or_path"], pipeline(["Is it good?"])


def test_saving_an_adapter_asks_nothing_of_its_base(loopback, run_client, folder, tmp_path):
    base, adapted, client = loopback.name("base"), loopback.name("adapted"), run_client(loopback.token)
    client("hub_steps:publish", pipeline=str(folder), repo_id=base)
    client("hub_steps:behaviour", name=base)
    loopback.requests.clear()
    named, _ = client(adapt_and_save, name=base, saved=str(tmp_path / "saved"), published=adapted)
    assert named == f"{base}-upstream-model"
    assert not [request for request in loopback.asked("HEAD") if f"{base}-" in request]


def test_an_adapter_of_a_model_in_a_folder_of_a_repository_names_no_other(loopback, run_client, folder, tmp_path):
    """PEFT would look for the model at the root, where another one may lie."""
    repo_id, client = loopback.name("adapted"), run_client(loopback.token)
    loopback.add("models", "org/whole", content_of(folder))
    _, expected = client(adapt_and_save, name="org/whole", saved=str(tmp_path / "saved"), published=repo_id)
    config = json.loads(loopback.repository("models", repo_id).commit("main").files["adapter_config.json"].content)
    assert config["base_model_name_or_path"] is None and config["revision"] is None
    assert run_client()("hub_steps:predict", name=repo_id) == expected


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_a_part_of_a_folder_is_verified_when_it_is_used(copy):
    path = copy / "index" / "index.faiss"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    loaded = ReCrossPipeline.from_pretrained(copy)
    assert loaded.upstream_model is not None
    with pytest.raises(ArtifactError, match=r"index/index\.faiss is not the file that was saved"):
        loaded.index  # noqa: B018


def test_a_publication_of_what_is_on_disk_reads_no_weights(folder, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("weights were read")

    monkeypatch.setattr(StoredParts, "_load", refuse)
    monkeypatch.setattr(CrossEncoderReranker, "from_pretrained", refuse)
    planned = ReCrossPipeline.from_pretrained(folder).publication("org/name", tmp_path).publications()
    assert [publication.repo_id for publication in planned][-1] == "org/name"
    assert all(publication.files["README.md"] for publication in planned)


@pytest.mark.parametrize("killed_at", range(6))
def test_a_reranker_that_is_put_into_a_pipeline_and_killed_leaves_a_whole_one(killed_at, copy, monkeypatch):
    old, new = (one.score(["a"], ["b"]).item() for one in (reranker(), reranker(shift=3.0)))
    left = killed_at

    def count(function):
        def counted(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return counted

    assert old != new
    with monkeypatch.context() as patches:
        patches.setattr(saving, "write_json", count(saving.write_json))
        patches.setattr(saving.shutil, "rmtree", count(saving.shutil.rmtree))
        patches.setattr(CrossEncoderReranker, "save_pretrained", count(CrossEncoderReranker.save_pretrained))
        with pytest.raises(KeyboardInterrupt):
            save_reranker(copy, reranker(shift=3.0))
    assert ReCrossPipeline.from_pretrained(copy).reranker.score(["a"], ["b"]).item() in (old, new)
    save_reranker(copy, reranker(shift=3.0))
    assert ReCrossPipeline.from_pretrained(copy).reranker.score(["a"], ["b"]).item() == new
    assert {path.name for path in copy.iterdir()} == {"upstream_model", "index", "reranker", "recross.json"}


def test_a_save_that_was_killed_between_two_renames_says_where_the_old_pipeline_is(copy):
    copy.rename(copy.with_name(".copy.17.replaced"))
    with pytest.raises(FileNotFoundError, match=r"A save was interrupted: .* is .*\.copy\.17\.replaced, rename it"):
        ReCrossPipeline.from_pretrained(copy)


def test_pickles_in_folders_below_are_not_pushed_either(bart, tokenizer, examples, tmp_path):
    args = ExampleTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = ExampleTrainer(bart, args, train_dataset=examples, processing_class=tokenizer)
    for name in ("runs/state.pt", "checkpoint-1/optimizer.pt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"safe formats alone in .*, found runs/state\.pt: pickles are not published"):
        trainer.push_to_hub()
