"""What PromptSource 0.2.3 itself renders for every template of its package, on generated rows.

To record it anew, in an environment of its own where the original imports:

    python -m venv recording && recording/bin/pip install jinja2 pyyaml pandas 'setuptools<81'
    recording/bin/pip install --no-deps --ignore-requires-python promptsource==0.2.3
    recording/bin/python tests/promptsource_outputs.py

writes tests/promptsource-0.2.3.json: for each template the seeds of rows that it renders, and a hash of what it makes of each; where it
renders none of the rows that were tried, no seed.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from jinja2 import Environment, meta, nodes

RECORDED = Path(__file__).with_name("promptsource-0.2.3.json")
ROWS_A_TEMPLATE = 3
SEEDS, MORE_SEEDS = 60, 1500  # more for templates that ask for rows of a rare shape

_PARSER = Environment(autoescape=False)  # parses only
_PARSER.filters |= dict.fromkeys(("choice", "most_frequent"), str)
_WORDS = [
    "rain",
    "Yes",
    "no",
    "two words",
    "",
    "été \u2013 雨",
    "<b>",
    "a ||| b",
    "O'Neil & co",
    "3",
    "x, y; z",
    "{{ x }}",
    "end.\n",
]


class Rows:
    """Rows of random values under the names that a template uses, with types that it may or may not take."""

    def __init__(self, jinja: str, answer_choices: str | None) -> None:
        trees = [_PARSER.parse(source) for source in (jinja, answer_choices or "")]
        self.names = sorted(
            set().union(*map(meta.find_undeclared_variables, trees)) - {"answer_choices", "range", "zip"}
        )
        self.keys = sorted(
            {node.attr for tree in trees for node in tree.find_all(nodes.Getattr)}
            | {
                node.arg.value
                for tree in trees
                for node in tree.find_all(nodes.Getitem)
                if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str)
            }
        )

    def row(self, seed: int) -> dict[str, Any]:
        rng = random.Random(seed)
        return {name: self._value(rng, depth=2) for name in self.names}

    def _value(self, rng: random.Random, depth: int) -> Any:
        kind = rng.choice(
            ["text", "text", "number", "number", "list", "mapping"] if depth else ["text", "text", "number"]
        )
        if kind == "number":
            return rng.choice([0, 0, 1, 1, 2, 3, -1, 7, 0.5, True, None])
        if kind == "list":
            return self._list(rng, depth - 1)
        if kind == "mapping" and self.keys:
            return {key: self._value(rng, depth - 1) for key in self.keys}
        text = " ".join(rng.choice(_WORDS) for _ in range(rng.choice([1, 1, 2, 5])))
        return text * 1000 if rng.random() < 0.05 else text

    def _list(self, rng: random.Random, depth: int) -> list[Any]:
        state, length = rng.getstate(), rng.choice([1, 2, 4, 6])
        items = []
        for number in range(length):
            # The items of a list are of one type: drawn in the same way, from other words.
            rng.setstate(state)
            rng.random()
            item = self._value(rng, depth)
            items.append(f"{item} {number}" if isinstance(item, str) else item)
        return items


def digest(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def record() -> None:
    from promptsource.templates import TemplateCollection

    recorded: dict[str, dict[str, dict[str, str]]] = {}
    for (dataset, subset), templates in TemplateCollection().datasets_templates.items():
        of_dataset = recorded.setdefault(f"{dataset}/{subset}" if subset else dataset, {})
        for template in templates.templates.values():
            rows = Rows(template.jinja, template.answer_choices)
            found: dict[str, list[str]] = {}
            for seed in range(MORE_SEEDS):
                if seed >= SEEDS and found:
                    break
                random.seed(seed)
                try:
                    found[str(seed)] = template.apply(rows.row(seed))
                except Exception:
                    continue
                if sum(map(all, found.values())) == ROWS_A_TEMPLATE:
                    break
            # Those that say most: an input and an answer rather than nothing.
            best = sorted(found, key=lambda seed: (-sum(map(bool, found[seed])), int(seed)))[:ROWS_A_TEMPLATE]
            of_dataset[template.name] = {seed: digest(found[seed]) for seed in best}
    names = {name: dict(sorted(templates.items())) for name, templates in sorted(recorded.items())}
    RECORDED.write_text(json.dumps(names, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    counts = [len(seeds) for templates in recorded.values() for seeds in templates.values()]
    print(f"{len(counts)} templates, {sum(counts)} rows; {counts.count(0)} templates render none of {MORE_SEEDS} rows")


if __name__ == "__main__":
    record()
