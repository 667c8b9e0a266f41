"""Whether PromptSource's templates come out as the ReCross authors stored them: real rows, real renderings.

    python benchmarks/prompts_on_real_data.py --data recross-data

The authors' files hold renderings and not the rows that they are made of. Where a template shows all fields of a row, the row is read back
from its rendering, and every OTHER template that the authors rendered the same source example with is rendered from that row and compared
with what they stored, byte for byte. A rendering is never compared with a row that was read from it; each pair of a rendering read and a
rendering compared counts. What was compared and what differed is kept in benchmarks/results/prompts_on_real_data.json.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import Environment, nodes

from recross_hf.core.files import write_json
from recross_hf.core.tables import format_table
from recross_hf.mixture.template_files import load_templates
from recross_hf.mixture.templates import SEPARATOR, PromptTemplate

# Task, the fields that are texts, and the one that is seen in the answer alone, with its values.
TASKS: dict[str, tuple[str, tuple[str, ...], str, tuple[Any, ...]]] = {
    "super_glue-cb": ("super_glue/cb", ("premise", "hypothesis"), "label", (0, 1, 2)),
    "super_glue-wic": ("super_glue/wic", ("word", "sentence1", "sentence2"), "label", (0, 1)),
    "super_glue-wsc.fixed": ("super_glue/wsc.fixed", ("text", "span1_text", "span2_text"), "label", (0, 1)),
    "winogrande-winogrande_xl": (
        "winogrande/winogrande_xl",
        ("sentence", "option1", "option2"),
        "answer",
        ("1", "2"),
    ),
    "anli_r3": ("anli", ("premise", "hypothesis"), "label", (0, 1, 2)),
    "piqa": ("piqa", ("goal", "sol1", "sol2"), "label", (0, 1)),
}


def patterns(template: PromptTemplate, fields: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]] | None:
    """What reads the fields from the template's input, each taking as much as it can and as little as it can; None if it cannot be read back."""
    shown: set[str] = set()
    sources = ["", ""]
    for node in Environment(autoescape=False).parse(template.jinja.partition(SEPARATOR)[0].strip()).body:
        if not isinstance(node, nodes.Output):
            return None
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                found = [re.escape(part.data)] * 2
            elif isinstance(part, nodes.Const) and isinstance(part.value, str):
                found = [re.escape(part.value)] * 2
            elif isinstance(part, nodes.Name) and part.name in fields:
                found = (
                    [f"(?P={part.name})"] * 2 if part.name in shown else [f"(?P<{part.name}>.+{q})" for q in ("", "?")]
                )
                shown.add(part.name)
            else:
                return None
            sources = [source + more for source, more in zip(sources, found, strict=True)]
    if shown != set(fields):
        return None
    greedy, lazy = (re.compile(source, re.DOTALL) for source in sources)
    return greedy, lazy


def rows_of(
    template: PromptTemplate, stored: dict[str, Any], fields: tuple[str, ...], hidden: str, values: tuple[Any, ...]
) -> Iterator[dict[str, Any]]:
    """The rows that the rendering may have been made of: one, if it says all."""
    both = patterns(template, fields)
    matches = [pattern.fullmatch(stored["input"]) for pattern in both or ()]
    texts = [match.groupdict() for match in matches if match]
    for row in texts[:1] if texts[1:] == texts[:1] else texts:
        for value in values if template.columns <= {*fields, hidden} else ():
            example = template.example(row | {hidden: value})
            if example is not None and example["references"] == stored["outputs"]:
                yield row | {hidden: value}


def difference(example: dict[str, Any] | None, stored: dict[str, Any]) -> str:
    """In what the rendered and the stored example differ; empty if in nothing."""
    if example is None:
        return "nothing rendered"
    if example["references"] != stored["outputs"]:
        return "answer"
    if example["input"] == stored["input"]:
        return ""
    return "white space" if example["input"].split() == stored["input"].split() else "input"


def compare(data: Path, task: str) -> dict[str, Any]:
    """The counts of one task."""
    dataset, fields, hidden, values = TASKS[task]
    templates = {template.name: template for template in load_templates(dataset)}
    examples: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in pq.read_table(data / "target" / task / "test.parquet").to_pylist():
        examples[row["example_id"].rpartition("#")[2]].append(row)
    counts: Counter[str] = Counter(
        dict.fromkeys(("read back", "ambiguous", "not comparable", "compared", "pairs", "equal pairs"), 0)
    )
    differences: Counter[str] = Counter()
    unequal: set[str] = set()
    shown: list[dict[str, Any]] = []
    compared_with: set[str] = set()
    for stored in examples.values():
        read = {}
        for position, source in enumerate(stored):
            found = list(rows_of(templates[source["template"]], source, fields, hidden, values))
            counts["ambiguous"] += len(found) > 1
            if len(found) == 1:
                read[position] = found[0]
        counts["read back"] += bool(read)
        for position, target in enumerate(stored):
            # Of another template: what was read is not what is compared.
            template = templates[target["template"]]
            rows = [row for other, row in read.items() if stored[other]["template"] != target["template"]]
            if rows and not template.columns <= rows[0].keys():
                counts["not comparable"] += 1  # asks for a column that no text shows
                continue
            counts["compared"] += bool(rows)
            compared_with |= {target["template"]} if rows else set()
            for row in rows:
                counts["pairs"] += 1
                example = template.example(row)
                differs = difference(example, target)
                counts["equal pairs"] += not differs
                if not differs:
                    continue
                differences[f"{target['template']}: {differs}"] += 1
                unequal.add(f"{target['example_id']}/{position}")
                if len(shown) < 5:
                    shown.append({"row": row, "rendered": example, "stored": target})
    return {
        "source_examples": len(examples),
        "renderings": sum(map(len, examples.values())),
        "templates": len(templates),
        "templates_compared": len(compared_with),
        **{name.replace(" ", "_"): number for name, number in counts.items()},
        "equal": counts["compared"] - len(unequal),
        "differences": dict(differences.most_common()),
        "first_differences": shown,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="target/TASK/test.parquet and so on")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/prompts_on_real_data.json"))
    args = parser.parse_args(argv)

    results = {task: compare(args.data, task) for task in args.tasks}
    header = ["task", "source examples", "read back", "renderings", "compared", "equal", "pairs", "equal pairs"]
    keys = ["source_examples", "read_back", "renderings", "compared", "equal", "pairs", "equal_pairs"]
    print(format_table(header, [[task, *(f"{found[key]:,}" for key in keys)] for task, found in results.items()]))
    for task, found in results.items():
        for name, number in found["differences"].items():
            print(f"{task}: {number} x {name}")
    write_json(args.output, results)


if __name__ == "__main__":
    main()
