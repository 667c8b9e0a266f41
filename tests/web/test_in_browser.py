"""The page in a real browser without a screen, from the paste to the download, with the starter.

RECROSS_TEST_BROWSER names the browser, chromium by default; RECROSS_TEST_AXE the file `axe.min.js` of the npm package axe-core.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytest.importorskip("gradio", reason="the page is made with gradio: pip install 'recross_hf[web]'")
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "web_server_script.py"
BROWSER = os.environ.get("RECROSS_TEST_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(os.environ.get("RECROSS_TEST_AXE", "node_modules/axe-core/axe.min.js"))
ONE_MORE = "In the bus sits the beekeeper with Jack. The driver lets the beekeeper off, and the stop is airport, hive or hospital."
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> ${alert(3)} {{alert(4)}}"
SOON, IN_A_WHILE = 15_000, 120_000  # milliseconds; a busy machine is slow


class ServerOfPage:
    """A page that is served by a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.requests = folder, folder / "requests.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {**os.environ, "WEB_REQUESTS": str(self.requests), "TMPDIR": str(folder)}
        environment.pop("RECROSS_PIPELINE", None)
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--port", str(port)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0]

    def folders(self, prefix: str) -> list[Path]:
        return [path for path in self.folder.glob(f"{prefix}*") if path.is_dir()]

    def files(self) -> list[Path]:
        """What visitors have on the server: folders of their own, uploads, and copies of downloads."""
        return [
            *(path for path in self.folders("recross-web-") if not path.name.startswith("recross-web-files-")),
            *(
                path
                for folder in self.folders("recross-web-files-")
                for path in folder.rglob("*")
                if path.is_file() and path.stat().st_size
            ),
        ]

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = ServerOfPage(tmp_path_factory.mktemp("served"))
    yield server
    server.end()
    assert {path.name for path in server.folder.iterdir()} <= {"server.log", "requests.log"}
    assert not server.requests.exists(), server.requests.read_text()


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("there is no browser: apt-get install chromium, or name one in RECROSS_TEST_BROWSER")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(server, browser):
    """Opens the page in a window that shares nothing with others; what left the machine or failed in it fails the test."""
    contexts, wrong = [], []

    def visit(**settings):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **settings})
        contexts.append(context)
        context.set_default_timeout(SOON)
        page = context.new_page()
        context.on("request", lambda request: wrong.append(request.url) if leaves(request.url) else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}") or dialog.dismiss())
        page.goto(server.address)
        page.get_by_role("button", name="Retrieve").wait_for()
        return page

    def leaves(url):
        return not url.startswith((server.address, "data:", "blob:"))

    yield visit
    for context in contexts:
        context.close()
    assert not wrong


def choose(page, task="bus_stop"):
    page.get_by_label(task, exact=True).check()
    page.wait_for_function("document.querySelector('textarea').value.length > 100")


def retrieve(page):
    page.get_by_role("button", name="Retrieve").click()
    page.locator("#tasks table").wait_for()


def adapt(page):
    page.get_by_role("button", name="Adapt", exact=True).click()
    page.get_by_role("progressbar").wait_for()


def adapted(page):
    page.locator("#verdict p").first.wait_for(timeout=IN_A_WHILE)


def wait_until(true, seconds=30.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)


def is_wider_than_its_window(page):
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1")


def axe_findings(page):
    if not AXE.is_file():
        pytest.skip("there is no axe-core: npm install axe-core, or name axe.min.js in RECROSS_TEST_AXE")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_the_whole_way_with_the_starter(visit, server, tmp_path):
    page = visit()
    choose(page)
    retrieve(page)
    bars = page.locator("#tasks table tr")
    assert bars.count() == 2
    page.get_by_role("button", name="The neighbours of each input").click()
    neighbours = page.locator("#neighbours .rc-neighbours")
    neighbours.first.wait_for()
    assert neighbours.count() == 16
    assert neighbours.first.locator("li").count() == 5
    assert "distance" in neighbours.first.locator("li").first.inner_text()
    page.locator("#picture canvas, #picture svg").first.wait_for()

    page.get_by_label("route_order", exact=True).check()
    page.get_by_text("Left out: route_order.").wait_for()
    assert bars.count() == 1
    page.get_by_label("route_order", exact=True).uncheck()
    page.wait_for_function("document.querySelectorAll('#tasks table tr').length == 2")

    adapt(page)
    page.get_by_text(re.compile(r"step \d+ of 96, about \d+ s left")).wait_for(timeout=IN_A_WHILE)
    adapted(page)
    assert re.search(
        r"exact match on 100 labelled examples went from [\d.]+ % to [\d.]+ %", page.locator("#verdict").inner_text()
    )
    assert page.locator("#pairs li").count() == 16
    assert page.locator("#pairs mark").count() >= 2
    page.get_by_label("A new input").fill(ONE_MORE)
    page.get_by_role("button", name="Answer it").click()
    page.locator("#new-answer li").wait_for()

    with page.expect_download() as download:
        page.get_by_role("button", name="Download the adapter").click()
    download.value.save_as(tmp_path / "adapter.zip")
    names = zipfile.ZipFile(tmp_path / "adapter.zip").namelist()
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/report.html"} <= {*names}
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the report").click()
    download.value.save_as(tmp_path / "report.html")
    assert "bus_stop" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "add_adapted" in page.locator("#code").inner_text()
    page.get_by_role("button", name="Push it to the Hub").click()
    page.get_by_role("button", name="Push", exact=True).click()
    assert "name of a repository" in page.locator("#pushed").get_by_role("alert").inner_text()
    page.close()
    wait_until(lambda: not server.files())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expected at least one input, found none"),
        ("x" * 4001, "Expected inputs of at most 4,000 characters, found 4,001"),
        ("many\n" * 65, "Expected at most 64 inputs, found 65"),
        ("x" * 10_000_000, "Expected at most 1,048,576 bytes of inputs, found 10,000,000"),
    ],
    ids=["nothing", "long", "many", "10 MB"],
)
def test_what_is_wrong_with_what_is_pasted_is_said(text, said, visit):
    page = visit()
    page.locator("textarea").first.fill(text)
    page.get_by_role("button", name="Retrieve").click()
    assert said in page.get_by_role("alert").inner_text()
    page.locator("textarea").first.fill("word")  # and the page goes on
    retrieve(page)
    assert "About sixteen inputs find better examples than 1." in page.locator("#tasks").inner_text()


def test_html_is_shown_as_text_everywhere(visit):
    page = visit()
    page.locator("textarea").first.fill(f"{EVIL}\n{EVIL} once more")
    retrieve(page)
    page.get_by_role("button", name="The neighbours of each input").click()
    assert EVIL in page.locator("#neighbours summary").first.inner_text()
    assert not page.locator("#neighbours script, #neighbours img, #pairs img").count()
    adapt(page)
    adapted(page)
    assert EVIL in page.locator("#pairs").inner_text()
    page.get_by_label("A new input").fill(EVIL)
    page.get_by_role("button", name="Answer it").click()
    assert EVIL in page.locator("#new-answer li").inner_text()
    assert not page.locator("#pairs img, #new-answer img").count()


def test_nothing_of_a_visitor_stays_on_the_disk_or_in_the_log(visit, server):
    secret, other = "xylophone-4711", "zither-4712"
    page = visit()
    page.locator("textarea").first.fill(f"Is it a {secret}?")
    retrieve(page)
    page.locator("input[type=file]").first.set_input_files(
        {"name": "a.txt", "mimeType": "text/plain", "buffer": f"Is it a {other}?".encode()}
    )
    page.get_by_text("1 inputs of a.txt").wait_for()
    adapt(page)
    adapted(page)
    assert secret in page.locator("#pairs").inner_text()
    page.close()
    wait_until(lambda: not server.files())
    places = [server.folder, Path(os.environ["HF_HOME"])]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert not [path for path in files if any(one.encode() in path.read_bytes() for one in (secret, other))]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "picture.txt",
            b"\x89PNG\r\n\x1a\n" + bytes(100),
            "Expected examples in picture.txt, found a document or a picture",
        ),
        ("program.txt", bytes(range(1, 256)), "Expected UTF-8 in program.txt"),
        ("large.txt", b"word\n" * 2_000_000, "Expected a file of at most 1,048,576 bytes, found 10,000,000"),
        ("page.txt", b"<!doctype html><script>alert(1)</script>", "found a page of HTML"),
        ("good.csv", b'input,references\n"<b>Is it?</b>",yes\n', "1 inputs of good.csv, with right answers"),
    ],
    ids=["picture", "program", "10 MB", "html", "good"],
)
def test_files_are_read_or_refused_and_do_not_stay(name, content, said, visit, server):
    page = visit()
    page.locator("input[type=file]").first.set_input_files({"name": name, "mimeType": "text/plain", "buffer": content})
    page.get_by_text(said).wait_for()
    wait_until(lambda: not server.files())
    if name.startswith("good"):
        retrieve(page)
        assert "1 input," in page.locator("#tasks").inner_text()


def test_an_adaptation_is_cancelled_in_the_middle(visit, server):
    page = visit()
    choose(page)
    retrieve(page)
    adapt(page)
    page.get_by_text(re.compile(r"step [1-9]\d* of")).wait_for(timeout=IN_A_WHILE)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The adaptation was cancelled, and nothing of it was kept.").wait_for()
    assert not page.locator("#verdict").is_visible()
    assert page.get_by_role("button", name="Adapt", exact=True).is_enabled()
    assert not page.get_by_role("button", name="Cancel").is_visible()
    adapt(page)  # once more
    page.get_by_text(re.compile(r"step [1-9]\d* of")).wait_for(timeout=IN_A_WHILE)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The adaptation was cancelled").wait_for()


def test_two_visitors_at_once_wait_for_one_another_and_see_their_own(visit):
    one, other = visit(), visit()
    choose(one, "bus_stop")
    choose(other, "lost_property")
    retrieve(one)
    retrieve(other)
    adapt(one)
    adapt(other)
    assert "Waiting for its turn" in other.locator("#progress").inner_text()
    start = time.monotonic()
    other.locator("input[type=checkbox]").first.check()  # what is quick goes on meanwhile
    other.get_by_text("Left out:").wait_for()
    assert time.monotonic() - start < 5
    adapted(one)
    adapted(other)
    assert "bus" in one.locator("#pairs li").first.inner_text()
    assert "bus" not in other.locator("#pairs").inner_text()


def test_a_reload_in_the_middle_stops_the_training_and_the_queue_goes_on(visit, server):
    wait_until(lambda: not server.files())
    page, other = visit(), visit()
    for one in (page, other):
        choose(one)
        retrieve(one)
    adapt(page)
    page.get_by_text(re.compile(r"step [1-9]\d* of")).wait_for(timeout=IN_A_WHILE)
    adapt(other)
    assert len(server.files()) >= 1
    page.reload()
    page.get_by_role("button", name="Retrieve").wait_for()
    assert page.locator("textarea").first.input_value() == ""
    assert not page.locator("#tasks").is_visible()
    other.get_by_text(re.compile(r"step [1-9]\d* of")).wait_for(timeout=SOON)
    adapted(other)
    other.close()
    wait_until(lambda: not server.files())
    choose(page)
    retrieve(page)


def test_a_narrow_screen_holds_all_of_it(visit):
    page = visit(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    assert not is_wider_than_its_window(page)
    choose(page)
    retrieve(page)
    assert not is_wider_than_its_window(page)
    adapt(page)
    adapted(page)
    assert not is_wider_than_its_window(page)


def test_the_keyboard_alone_is_enough(visit):
    page = visit()
    page.locator("body").focus()

    def tab_to(what):
        for _ in range(60):
            page.keyboard.press("Tab")
            if (
                page.evaluate("document.activeElement.innerText || document.activeElement.tagName")
                .strip()
                .startswith(what)
            ):
                assert page.evaluate("document.activeElement.matches(':focus-visible')")
                return
        raise AssertionError(f"no way to {what}")

    tab_to("TEXTAREA")
    page.keyboard.type("Where does the sailor get off? harbour or court")
    tab_to("Retrieve")
    page.keyboard.press("Enter")
    page.locator("#tasks table").wait_for()
    first = page.locator("input[type=checkbox]").first
    for _ in range(60):
        page.keyboard.press("Tab")
        if first.evaluate("box => box === document.activeElement"):
            break
    page.keyboard.press("Space")
    page.get_by_text("Left out:").wait_for()
    tab_to("Adapt")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile(r"step [1-9]\d* of")).wait_for(timeout=IN_A_WHILE)
    tab_to("Cancel")
    page.keyboard.press("Enter")
    page.get_by_text("The adaptation was cancelled").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_of_axe(scheme, visit):
    page = visit(color_scheme=scheme)
    assert axe_findings(page) == []
    choose(page)
    retrieve(page)
    page.get_by_role("button", name="The neighbours of each input").click()
    page.get_by_role("button", name="Settings").click()
    assert axe_findings(page) == []
    adapt(page)
    adapted(page)
    page.get_by_role("button", name="Push it to the Hub").click()
    assert axe_findings(page) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background)[:3])) < 80) == (scheme == "dark")
