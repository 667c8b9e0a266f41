"""Examples a second of `PromptTemplate.apply` against PromptSource's own `Template.apply`.

PromptSource does not import beside current libraries, so that the original runs in an environment of its own, which a process of its own uses:

    python -m venv original && original/bin/pip install jinja2 pyyaml pandas 'setuptools<81'
    original/bin/pip install --no-deps --ignore-requires-python promptsource==0.2.3
    python benchmarks/rendering.py --original_python original/bin/python

Both render the same rows with the templates of the paper's upstream tasks, by turns; rows are generated as those of
tests/promptsource_outputs.py. A template is compiled anew in each turn. All outputs must be equal. Medians and the ratio turn by turn are
printed, and all timings are kept in benchmarks/results/rendering.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

Job = tuple[int, int, dict[str, Any]]  # template, seed, row
ROOT = Path(__file__).parents[1]
MAX_SEEDS = 400


def timed(apply: Callable[[int, int, dict[str, Any]], list[str]], jobs: list[Job]) -> tuple[float, str]:
    """The seconds of all jobs, and a hash of what came out."""
    start = time.perf_counter()
    outputs = [apply(*job) for job in jobs]
    seconds = time.perf_counter() - start
    return seconds, hashlib.sha256(json.dumps(outputs).encode()).hexdigest()


def run_original(path: Path) -> None:
    """Times the original once for each line of the standard input; `path` holds templates and jobs."""
    from promptsource.templates import Template

    content = json.loads(path.read_text(encoding="utf-8"))
    for _ in sys.stdin:
        templates = [
            Template(name, jinja, "", answer_choices=choices) for name, jinja, choices in content["templates"]
        ]

        def apply(template: int, seed: int, row: dict[str, Any], templates: list[Any] = templates) -> list[str]:
            random.seed(seed)
            return templates[template].apply(row)

        print(json.dumps(timed(apply, content["jobs"])), flush=True)


def jobs_of(templates: list[Any], number: int) -> list[Job]:
    """Jobs for all templates, by turns, of rows that a template renders an input and an answer of."""
    sys.path.append(str(ROOT / "tests"))
    from promptsource_outputs import Rows

    from recross_hf.mixture.sandbox import PromptError

    a_template = -(-number // len(templates))
    found: list[list[Job]] = []
    for position, template in enumerate(templates):
        rows = Rows(template.jinja, template.answer_choices)
        suited: list[Job] = []
        for seed in range(MAX_SEEDS):
            row = rows.row(seed)
            try:
                parts = template.apply(row, rng=random.Random(seed))
            except PromptError:
                continue
            if len(parts) == 2 and all(parts):
                suited.append((position, seed, row))
            if len(suited) == a_template:
                break
        if suited:
            found.append(suited)
    # Few generated rows suit some templates: those come several times.
    turns = -(-number // len(found))
    return sorted(
        [suited[turn % len(suited)] for turn in range(turns) for suited in found][:number], key=lambda job: job[:2]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original_python", required=True, help="of an environment where the original imports")
    parser.add_argument("--num_examples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/rendering.json"))
    args = parser.parse_args()

    import yaml
    from figures import Figure, report

    import recross_hf
    from recross_hf.core.tables import format_table
    from recross_hf.mixture.template_files import load_templates
    from recross_hf.mixture.templates import PromptTemplate

    tasks = yaml.safe_load((Path(recross_hf.__file__).parent / "tasks" / "recross.yaml").read_text(encoding="utf-8"))
    templates = [template for entry in tasks["upstream"] for template in load_templates(entry["templates"])]
    jobs = jobs_of(templates, args.num_examples)
    fields = [(template.name, template.jinja, template.answer_choices) for template in templates]
    seconds: dict[str, list[float]] = {"PromptSource": [], "recross_hf": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.json"
        path.write_text(json.dumps({"templates": fields, "jobs": jobs}), encoding="utf-8")
        command = [args.original_python, __file__, "--worker", str(path)]
        jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]  # as the original sees them
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            for _ in range(args.repeats):
                worker.stdin.write("again\n")
                worker.stdin.flush()
                line = worker.stdout.readline()
                if not line:
                    raise SystemExit(
                        f"Expected timings of the original, found none: does {args.original_python} import it?"
                    )
                original, expected = json.loads(line)
                ours = [PromptTemplate(name, jinja, choices) for name, jinja, choices in fields]

                def apply(template: int, seed: int, row: dict[str, Any], ours: list[Any] = ours) -> list[str]:
                    return ours[template].apply(row, rng=random.Random(seed))

                own, found = timed(apply, jobs)
                if found != expected:
                    raise SystemExit("The outputs are not those of the original.")
                seconds["PromptSource"].append(original)
                seconds["recross_hf"].append(own)
            worker.stdin.close()
    ratios = [a / b for a, b in zip(seconds["PromptSource"], seconds["recross_hf"], strict=True)]
    header = [f"{len(jobs):,} examples, {len({job[0] for job in jobs})} templates", "examples/s"]
    print(format_table(header, [[name, f"{len(jobs) / median(times):,.0f}"] for name, times in seconds.items()]))
    print(f"{median(ratios):.1f} times as fast [{min(ratios):.1f}, {max(ratios):.1f}]")
    figure = Figure(
        what=f"rendering {len(jobs):,} examples",
        unit="examples/s",
        ours=len(jobs) / median(seconds["recross_hf"]),
        peer=len(jobs) / median(seconds["PromptSource"]),
        peer_name="PromptSource",
        ratio=median(ratios),
        goal=3,
    )
    report(
        [figure],
        {
            "num_examples": len(jobs),
            "num_templates": len({job[0] for job in jobs}),
            "num_distinct": len({(job[0], job[1]) for job in jobs}),
            "seconds": seconds,
            "ratios": ratios,
            "median_ratio": median(ratios),
        },
        args.output,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        run_original(Path(sys.argv[2]))
    else:
        main()
