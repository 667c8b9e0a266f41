"""The README's Python runs and prints what the README says."""

import contextlib
import io
import re
from pathlib import Path

from recross_hf import read_task_sources

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
UPSTREAM_DATA = (ROOT / "docs/guides/upstream_data.md").read_text(encoding="utf-8")


def test_the_ten_lines_print_what_the_readme_shows():
    code, printed = re.search(r"## Ten lines.*?```python\n(.*?)```.*?```text\n(.*?)```", README, re.DOTALL).groups()
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})  # our own file
    lines = [line for line in output.getvalue().splitlines() if not line.startswith("{'train_runtime'")]

    def counts(line: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", line)]

    shown = printed.splitlines()
    assert len(lines) == len(shown)
    for found, expected in zip(lines, shown, strict=True):
        # Another machine's arithmetic may change a few answers of five hundred, not the words.
        assert re.sub(r"\d+", "#", found) == re.sub(r"\d+", "#", expected)
        assert all(abs(a - b) <= 25 for a, b in zip(counts(found), counts(expected), strict=True))


def test_the_files_that_it_and_the_docs_name_exist():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tasks_that_it_shows_are_read(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", UPSTREAM_DATA, re.DOTALL)
    (tmp_path / "tasks.yaml").write_text(block)
    tasks = read_task_sources(tmp_path / "tasks.yaml")
    assert [source.task for source in tasks["upstream"]] == ["glue-mrpc", "cb", "tickets", "faq"]
    assert tasks["upstream"][2].load_templates()[0].example({"text": "Lost.", "desk": "post"}) == {
        "input": "Lost. Which desk?",
        "references": ["post"],
        "choices": [],
    }
    assert [source.task for source in tasks["targets"]] == ["calls"]


def test_the_templates_that_it_shows_make_examples(promptsource, capsys):
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", UPSTREAM_DATA, re.DOTALL) if "load_templates" in block
    )
    made = []
    exec(
        compile(
            code.replace("    template.example(", "    made.append(template.example)\n    template.example("),
            "README.md",
            "exec",
        ),
        {"made": made},
    )
    assert len(made) == 15
