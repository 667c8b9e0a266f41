"""The Python of the pages runs, their commands are those of the real parsers, and their notebooks give what they show."""

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import setups
from accelerate.commands.launch import launch_command_parser
from example_scripts import as_of_a_new_process

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)
# They record what was run when it was measured, with the names of that time.
RECORDS = {"docs/evidence.md", "docs/evidence/first_model.md"}


def blocks(path: Path, language: str) -> list[re.Match[str]]:
    return [block for block in BLOCK.finditer(path.read_text(encoding="utf-8")) if block["language"] == language]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    names = getattr(setups, page.stem, dict)()
    skipped = []
    for block in blocks(page, "python"):
        if "promptsource" in block["code"] or "load_templates" in block["code"]:
            request.getfixturevalue("promptsource")
        if block["reason"]:
            skipped.append(block["reason"])
            continue
        line = page.read_text(encoding="utf-8")[: block.start("code")].count("\n")
        code = compile("\n" * line + block["code"], str(page), "exec")  # so that a traceback names the page's line
        exec(code, names)  # our own file
    if len(skipped) == len(blocks(page, "python")):
        pytest.skip("; ".join(skipped))


# ---- commands ------------------------------------------------------------------------------------------------------


def commands(page: Path) -> list[list[str]]:
    """The commands of a page, as words, without comments and variables before them."""
    lines = (
        "".join(block["code"] for block in blocks(page, "bash") if not block["reason"])
        .replace("\\\n", " ")
        .splitlines()
    )
    return [words for line in lines if (words := shlex.split(line, comments=True))]


WITH_COMMANDS = [page for page in (ROOT / "README.md", *PAGES) if commands(page) and name_of(page) not in RECORDS]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_the_commands_of_a_page_are_taken_by_the_real_parsers(page, monkeypatch):
    ours = []
    for words in commands(page):
        match words:
            case ["make", *arguments]:
                targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
                assert {word for word in arguments if "=" not in word} <= set(targets), words
            case ["pip", "install", *arguments]:
                from pip._internal.commands import create_command

                create_command("install").parse_args(arguments)
            case ["hf", "jobs", "run", *arguments]:
                command = [sys.executable, "-m", "huggingface_hub.cli.hf", "jobs", "run", "--dry-run", *arguments]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
            case ["recross", *arguments]:
                ours.append(arguments)
            case ["accelerate", "launch", *arguments]:
                launched = launch_command_parser().parse_args(arguments)
                assert launched.module and launched.training_script == "recross_hf", words
                assert launched.config_file is None or (ROOT / launched.config_file).is_file(), words
                ours.append(launched.training_script_args)
            case _:
                pytest.fail(
                    f"Expected a command of make, pip, hf, recross or accelerate, found {shlex.join(words)!r}."
                )
    if ours and importlib.util.find_spec("recross_hf.cli") is None:
        pytest.skip("recross_hf.cli is not there, which parses the commands of `recross`")
    for arguments in ours:
        with as_of_a_new_process():  # one command leaves its group of processes before anything asks for a device
            parse(arguments, monkeypatch)


class Parsed(BaseException):
    """It ends a command when its arguments were read, before it does anything; no `except Exception` catches it."""


def parse(arguments: list[str], monkeypatch) -> None:
    """Lets `recross` read a command line."""
    parser = importlib.import_module("recross_hf.cli.parser").CommandParser
    main = importlib.import_module("recross_hf.cli.main").main
    read = parser.said

    def said(self, words):
        read(self, words)
        raise Parsed

    monkeypatch.chdir(ROOT)  # of the recipes that commands name
    with monkeypatch.context() as patched:
        patched.setattr(parser, "said", said)
        try:
            main(arguments)
        except Parsed:
            return
        except SystemExit as error:
            assert not error.code, f"recross {shlex.join(arguments)} ended with status {error.code}"
        if "--help" not in arguments and "--version" not in arguments:
            pytest.fail(f"recross {shlex.join(arguments)} read no arguments")
