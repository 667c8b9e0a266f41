"""The page without a browser: it asks nobody for anything, offers no API, and shows mistakes in words."""

import copy
import json
import os
import re
import sys

import pytest
import tiny
from example_scripts import recross

from recross_hf import LanceIndex
from recross_hf.web.actions import Actions
from recross_hf.web.layout import css, imported_gradio, theme
from recross_hf.web.limits import Limits
from recross_hf.web.page import Page
from recross_hf.web.served import ServedPipeline
from recross_hf.web.visits import Visits

LIMITS = Limits(inputs=8, retrieved=24, steps=2)


@pytest.fixture(scope="module")
def gr(tmp_path_factory):
    pytest.importorskip("gradio", reason="the page is made with gradio: pip install 'recross_hf[web]'")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "GRADIO_SSR_MODE"):
            patch.setenv(name, "")
        yield imported_gradio(tmp_path_factory.mktemp("files"))


@pytest.fixture(params=["faiss", pytest.param("lance", marks=pytest.mark.slow)])
def page(request, gr, pipeline, tmp_path):
    if request.param == "lance":
        pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")
        index, pipeline = pipeline.index, copy.copy(pipeline)
        pipeline.index = LanceIndex.build(index.dataset, index.encoder, tmp_path / "index.lance")
    actions = Actions(ServedPipeline(pipeline, LIMITS, "org/x"), Visits(LIMITS, tmp_path))
    yield Page(gr, actions)
    actions.visits.end_all()


def test_nothing_is_fetched_from_anybody_and_no_function_is_an_api(page, gr):
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    config = page.blocks.get_config_file()
    assert not [function for function in config["dependencies"] if function["api_visibility"] != "private"]
    assert not config["analytics_enabled"]
    shown = json.dumps([component["props"] for component in config["components"]], default=str)
    assert not re.findall(r"https?://(?!huggingface.co/org/x)[^\s\"'<\\]+", shown)
    assert not re.findall(r"url\(|@import|https?://", css())
    assert not theme(gr)._stylesheets


def test_the_folder_of_a_pipeline_is_not_told(gr, pipeline, tmp_path):
    actions = Actions(ServedPipeline(pipeline, LIMITS, str(tmp_path / "my-pipeline")), Visits(LIMITS))
    shown = json.dumps([one["props"] for one in Page(gr, actions).blocks.get_config_file()["components"]], default=str)
    assert "<b>my-pipeline</b>" in shown
    assert str(tmp_path) not in shown


def test_one_adaptation_at_a_time_and_what_is_quick_does_not_wait_for_it(page):
    limits = [function.concurrency_limit for function in page.blocks.fns.values()]
    assert limits.count(1) == 1


def test_mistakes_are_shown_in_words_and_change_nothing_else(page, gr):
    message, *others = page.retrieve("me", "", "", None)
    assert 'role="alert"' in message
    assert "found none. Paste some" in message
    assert len(others) == 6
    assert all(other == gr.skip() for other in others)
    *_, (message, *others) = page.adapt("me", 8, 1, "form")
    assert "Retrieve first" in message
    assert "Adapt first" in page.answer("me", "x")
    message, token = page.push("me", "me/x", "hf_secret", True)
    assert "Adapt first" in message
    assert token == ""


def test_the_whole_way(page):
    message, *found = page.retrieve("me", "\n".join(tiny.queries()), "", None)
    assert message == ""
    tasks = found[3]["choices"]
    assert len(tasks) >= 2
    *_, excluded, _, _ = page.exclude("me", [tasks[0][0] if isinstance(tasks[0], tuple) else tasks[0]])
    assert len(excluded["value"]) == 1
    *told, (note, _, _, *shown) = page.adapt("me", 8, 2, "off")
    assert all('role="progressbar"' in one[0] for one in told)
    assert "Adapted in" in note
    assert "The adapted model answers" in shown[1]
    assert shown[4]["visible"]
    assert "new input" in page.answer("me", tiny.queries()[0])
    page.leave("me")
    assert not len(page.actions.visits)


def test_what_is_wrong_with_the_program_is_no_mistake_of_the_visitor(page, monkeypatch):
    monkeypatch.setattr(page.actions, "retrieve", lambda *_: {}["a"])
    with pytest.raises(KeyError):
        page.retrieve("me", "x", "", None)
    monkeypatch.setattr(page.actions, "adapt", lambda *_, **__: {}["a"])
    ((message, button, *_),) = page.adapt("me", 8, 1, "form")
    assert "Something went wrong on the server" in message
    assert button["interactive"]


def test_the_command_serves_what_it_names_and_else_what_the_environment_names(tmp_path, monkeypatch):
    from recross_hf.cli import web

    served = []
    monkeypatch.setattr(web, "launch", lambda pipeline, **settings: served.append((pipeline, settings)))
    monkeypatch.delenv(web.PIPELINE_VARIABLE, raising=False)
    assert recross(tmp_path, "web")[0] == 0
    monkeypatch.setenv(web.PIPELINE_VARIABLE, "org/other")
    assert recross(tmp_path, "web")[0] == 0
    words = ["web", "org/x", "--revision", "v1", "--port", "8000", "--max_inputs", "3", "--max_adaptation_steps", "5"]
    assert recross(tmp_path, *words)[0] == 0
    assert [pipeline for pipeline, _ in served] == [None, "org/other", "org/x"]
    assert served[0][1]["limits"] == Limits()
    settings = served[2][1]
    assert (settings["revision"], settings["host"], settings["port"]) == ("v1", "127.0.0.1", 8000)
    assert settings["limits"] == Limits(inputs=3, steps=5)
    code, _, told = recross(tmp_path, "web", "--max_inputs", "0")
    assert (code, told.count("\n")) == (2, 1)
    assert "found less for inputs" in told


def test_without_gradio_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, printed, told = recross(tmp_path, "web")
    assert (code, told.count("\n"), printed) == (2, 1, "")
    assert "Expected the package gradio, found none. Install it: pip install 'recross_hf[web]'" in told


def test_a_port_that_is_taken_is_named(gr, tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, told = recross(tmp_path, "web", "--port", taken.getsockname()[1])
    assert (code, told.count("\n")) == (2, 1)
    assert "Expected a free port to serve the page at" in told
