"""The Space: a few lines that serve the page, published beside a pipeline and pinned to it; and pushes by a visitor's own token."""

import ast
from pathlib import Path

import pytest
import yaml
from loopback_hub import StepError, client_environment

import recross_hf
from recross_hf.hub.repository import Repository
from recross_hf.web import serving
from recross_hf.web.space import GRADIO_VERSION, space_files

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789" * 4


def test_the_space_of_the_repository_is_that_of_the_starter():
    files = space_files(license="apache-2.0")
    folder = ROOT / "spaces" / "recross"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_the_space_of_a_pipeline_is_pinned():
    files = {name: content.decode() for name, content in space_files(Repository("org/x", revision=COMMIT)).items()}
    assert files["requirements.txt"] == f"recross_hf[web]=={recross_hf.__version__}\n"
    *_, call = ast.parse(files["app.py"]).body
    assert ast.unparse(call) == f"launch_space('org/x', revision='{COMMIT}')"
    _, data, text = files["README.md"].split("---\n", 2)
    data = yaml.safe_load(data)
    assert (data["sdk"], data["sdk_version"], data["app_file"]) == ("gradio", GRADIO_VERSION, "app.py")
    assert data["models"] == ["org/x"]
    assert len(data["short_description"]) <= 60  # the Hub takes no more
    assert COMMIT in text


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("org/x", COMMIT)),
        ({"RECROSS_REVISION": "main"}, ("org/x", "main")),
        ({"RECROSS_PIPELINE": "org/y"}, ("org/y", None)),
        ({"RECROSS_PIPELINE": "org/y", "RECROSS_REVISION": "v1"}, ("org/y", "v1")),
    ],
)
def test_variables_of_a_space_name_another_pipeline(variables, expected, monkeypatch):
    launched = []
    monkeypatch.setattr(serving, "launch", lambda pipeline, *, revision: launched.append((pipeline, revision)))
    for name in ("RECROSS_PIPELINE", "RECROSS_REVISION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    serving.launch_space("org/x", revision=COMMIT)
    assert launched == [expected]


def test_a_space_is_published_beside_the_pipeline(loopback, clients, tmp_path):
    def publish(words, token):
        import io
        import os
        from contextlib import redirect_stdout

        from recross_hf.cli.main import main

        os.environ["HF_TOKEN"] = token
        with redirect_stdout(io.StringIO()) as shown:
            main(["publish", *words])
        return shown.getvalue()

    words = ["--namespace", loopback.user, "--name", "tried", "--no_metric", "--space"]
    with clients.start(client_environment(loopback.endpoint, tmp_path / "home", loopback.token), tmp_path) as client:
        shown = client.in_copy(publish, words=[*words, "--dry_run"], token=loopback.token)
        assert f"/spaces/{loopback.user}/tried (space): 3 files" in shown
        assert not loopback.requests
        shown = client.in_copy(publish, words=words, token=loopback.token)
        again = client.in_copy(publish, words=words, token=loopback.token)
    commit = loopback.repository("models", f"{loopback.user}/tried").commit("main").oid
    space = loopback.repository("spaces", f"{loopback.user}/tried")
    files = {name: file.content.decode() for name, file in space.commit("main").files.items()}
    assert f'launch_space("{loopback.user}/tried", revision="{commit}")' in files["app.py"]
    assert files["requirements.txt"].startswith("recross_hf[web]==")
    assert f"/spaces/{loopback.user}/tried/commit/" in shown
    assert f'from_pretrained("{loopback.user}/tried", revision="{commit}")' in shown
    assert shown == again  # nothing changed, and there is no commit more


def test_a_visitor_pushes_with_a_token_of_their_own_and_never_with_that_of_the_server(loopback, clients, tmp_path):
    def push(pipeline, repo_id, token):
        from recross_hf import ReCrossPipeline
        from recross_hf.web.actions import Actions
        from recross_hf.web.limits import Limits
        from recross_hf.web.served import ServedPipeline
        from recross_hf.web.visits import Visits

        limits = Limits(retrieved=8)
        actions = Actions(ServedPipeline(ReCrossPipeline.from_pretrained(pipeline), limits, pipeline), Visits(limits))
        actions.retrieve("me", "Where does the sailor get off?", "", None)
        *_, adapted = actions.adapt("me", max_steps=1, gate="off")
        try:
            return actions.push("me", repo_id, token, private=True).commit_url, adapted.code
        finally:
            actions.visits.end_all()

    def publish(repo_id):
        from recross_hf import ReCrossPipeline

        return ReCrossPipeline.from_pretrained().push_to_hub(repo_id).oid

    served = f"{loopback.user}/served"
    environment = client_environment(loopback.endpoint, tmp_path / "home", loopback.token)  # the server's own token
    with clients.start(environment, tmp_path) as client:
        commit = client.in_copy(publish, repo_id=served)
        mine = f"{loopback.other_user}/mine"
        url, code = client.in_copy(push, pipeline=served, repo_id=mine, token=loopback.other_token)
        assert f'from_pretrained("{served}", revision="{commit}")' in code
        with pytest.raises(StepError, match="token"):
            client.in_copy(push, pipeline=served, repo_id=f"{loopback.user}/stolen", token=loopback.invalid_token)
        with pytest.raises(StepError, match=r"rights|403|may not"):
            client.in_copy(push, pipeline=served, repo_id=f"{loopback.user}/stolen", token=loopback.other_token)
    assert ("models", f"{loopback.user}/stolen") not in loopback.store.repositories
    repository = loopback.repository("models", mine)
    assert repository.private
    assert mine in url
    assert {"adapter_config.json", "adapter_model.safetensors", "recross.json"} <= set(repository.commit("main").files)
    # Parts that are on the Hub stay where they are.
    assert {name for _, name in loopback.store.repositories if name.startswith(loopback.other_user)} == {mine}
