"""Seconds that `import recross_hf` takes, beside its limit and beside `import transformers`.

    python benchmarks/importing.py

Each import has a process of its own, which times it; the two take turns, after one run that fills the system's caches.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median

from figures import Figure, report

LIMIT = 0.5
OURS, PEER = "recross_hf", "transformers"
TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds_of(module: str) -> float:
    command = [sys.executable, "-c", TIMED.format(module)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/importing.json"))
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {OURS: [], PEER: []}
    for module in seconds:
        seconds_of(module)
    for _ in range(args.repeats):
        for module, found in seconds.items():
            found.append(seconds_of(module))
    ours = median(seconds[OURS])
    figures = [
        Figure(
            what=f"import {OURS}",
            unit="s",
            ours=ours,
            peer=peer,
            peer_name=name,
            ratio=ours / peer,
            goal=1.0,
            at_most=True,
        )
        for name, peer in (("the limit", LIMIT), (f"import {PEER}", median(seconds[PEER])))
    ]
    report(figures, {"seconds": seconds}, args.output)


if __name__ == "__main__":
    main()
