"""Which signals tell, without labels, whether an adaptation helps? Classifiers from one comparison, and what they do in another.

    recross benchmark --signals --target_tasks upstream_as_unseen/* --output_dir calibration ...
    recross benchmark --signals --target_tasks targets/* --output_dir targets ...
    python benchmarks/gate_classifier.py --calibration calibration --test targets

A cell's true gain is its exact match less that of the model as it is, on the same labelled test examples. Each signal alone, and logistic
regressions on two and three of them, are turned into gates. Everything is chosen on the calibration tasks: directions, combinations and
thresholds; of regressions by the scores of tasks that they were not fitted on (leave one task out). The test tasks say what the gates do.
A signal that a cell lacks counts against the adaptation where it stands alone, and as the usual value in a regression; a model that
diverged is refused by all.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from recross_hf import EvaluationResults
from recross_hf.core.files import write_json
from recross_hf.core.tables import format_table

HARM = 1.0
"""Points of exact match below the model as it is from which on an adaptation harms."""
POLICIES = {"no harm": 0.0, "5 % harm": 0.05, "best mean": 1.0}
"""Of the calibration cells, the share that a gate may let harm; among the thresholds that keep to it, the one with the best mean is taken."""
_CLIPPED = (2.0, 98.0)


@dataclass(frozen=True)
class Measured:
    """One adaptation: its signals, and what it did.

    Args:
        source, task, method: Folder of the comparison, target task and method.
        base, gain: Exact match of the model as it is, and what the adapted one has more, in points.
        error: Standard error of the gain over the test examples.
        numbers: Signals by name.
    """

    source: str
    task: str
    method: str
    query_set: int
    base: float
    gain: float
    error: float
    numbers: dict[str, float | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", nargs="+", type=Path, required=True, help="folders of comparisons")
    parser.add_argument("--test", nargs="*", type=Path, default=[], help="folders of comparisons with other tasks")
    parser.add_argument("--methods", nargs="*", help="methods to take; all by default")
    parser.add_argument("--signals", nargs="*", help="signals to combine; the best single ones by default")
    parser.add_argument(
        "--with_form", action="store_true", help="refuse adaptations whose answers lost their form, too"
    )
    parser.add_argument("--metric", default="exact_match", choices=["exact_match", "soft_em", "rank_correct"])
    parser.add_argument("--num_combined", type=int, default=14, help="single signals that combinations are made of")
    parser.add_argument("--most_signals", type=int, default=3, help="signals of a combination, at most")
    parser.add_argument("--policy", default="5 % harm", choices=list(POLICIES))
    parser.add_argument("--output", type=Path, default=Path("gate_classifier.json"))
    args = parser.parse_args()
    calibration, test = (
        [cell for folder in folders for cell in read_cells(folder, args.metric, args.methods)]
        for folders in (args.calibration, args.test)
    )
    if args.with_form:
        calibration, test = without_lost_form(calibration), without_lost_form(test)
    if both := sorted({cell.task for cell in calibration} & {cell.task for cell in test}):
        parser.error(f"Expected other tasks in --test than in --calibration, found {', '.join(both)} in both")
    result = analysed(
        calibration,
        test,
        names=args.signals,
        num_combined=args.num_combined,
        most=args.most_signals,
        policy=args.policy,
    )
    print_tables(result)
    write_json(args.output, result)
    print(f"\nWritten to {args.output}")


# ---- cells ---------------------------------------------------------------------------------------------------------------------------


def read_cells(folder: Path, metric: str = "exact_match", methods: Sequence[str] | None = None) -> list[Measured]:
    """The adaptations of a comparison that have signals, or of one of its files."""
    folder = folder.parent if folder.is_file() else folder
    results = EvaluationResults.load(folder)
    rows = results.predictions.to_pandas()
    base_of = {task: of.set_index("id")[metric] for task, of in rows[rows.method == "none"].groupby("task")}
    by_cell = dict(iter(rows.groupby(["method", "task", "query_set"])))
    found = []
    for cell in results.cells:
        if "signals" not in cell.details or cell.error is not None or (methods and cell.method not in methods):
            continue
        if cell.task not in base_of:
            raise SystemExit(f"Expected the method none in {folder}, found no prediction of it for {cell.task}.")
        adapted = by_cell[cell.method, cell.task, cell.query_set].set_index("id")[metric]
        pairs = adapted.to_frame("adapted").join(base_of[cell.task].rename("base"), how="inner").dropna().astype(float)
        if pairs.empty:
            continue
        change = 100 * (pairs.adapted - pairs.base)
        shares = np.array([*(cell.retrieved_tasks or {}).values()])
        of_retrieval = {"top_task_share": float(shares.max()), "num_tasks": float(len(shares))} if len(shares) else {}
        found.append(
            Measured(
                folder.name, cell.task, cell.method, cell.query_set, 100 * float(pairs.base.mean()), float(change.mean()),
                float(change.std(ddof=1) / np.sqrt(len(change))), {**cell.details["signals"]["numbers"], **of_retrieval},
            )
        )  # fmt: skip
    if not found:
        raise SystemExit(f"Expected cells with signals in {folder}, found none. Run `recross benchmark --signals`.")
    return found


def matrix(cells: Sequence[Measured], names: Sequence[str]) -> np.ndarray:
    """Signals `[num_cells, num_names]`; NaN where a cell lacks one."""
    values = [[cell.numbers.get(name) for name in names] for cell in cells]
    return np.array([[np.nan if value is None else value for value in row] for row in values], dtype=float)


def gains_of(cells: Sequence[Measured]) -> np.ndarray:
    return np.array([cell.gain for cell in cells])


def refused(cells: Sequence[Measured]) -> np.ndarray:
    """Whether each is refused whatever its score: it diverged, or has lost a form where that is asked for."""
    return np.array([cell.numbers.get("is_finite") == 0 for cell in cells], dtype=bool)


def without_lost_form(cells: Sequence[Measured]) -> list[Measured]:
    """The cells, of which those that lost a form are refused by all gates, as those that diverged are."""
    return [
        replace(cell, numbers=cell.numbers | {"is_finite": 0.0}) if cell.numbers.get("lost_forms") else cell
        for cell in cells
    ]


# ---- what a gate does ----------------------------------------------------------------------------------------------------------------


def rates(cells: Sequence[Measured], kept: np.ndarray, *, num_draws: int = 0) -> dict[str, Any]:
    """What a gate leaves: errors, harm and gain; with draws, also 95 % intervals over tasks drawn anew."""
    gains, errors = gains_of(cells), np.array([cell.error for cell in cells])
    kept = kept & ~refused(cells)
    left = np.where(kept, gains, 0.0)
    helps, harms = gains > 0, gains < -HARM
    surely = gains + 1.645 * errors < -HARM

    def share(part: np.ndarray, whole: np.ndarray) -> float | None:
        return float((part & whole).sum() / whole.sum()) if whole.any() else None

    tasks = np.array([cell.task for cell in cells])
    rows_of = [np.flatnonzero(tasks == task) for task in dict.fromkeys(tasks)]
    rng = np.random.default_rng(0)
    drawn = [np.concatenate([rows_of[number] for number in rng.integers(len(rows_of), size=len(rows_of))])
             for _ in range(num_draws)]  # fmt: skip

    def interval(value: Callable[[np.ndarray], float]) -> list[float] | None:
        return (
            None
            if not drawn
            else [float(bound) for bound in np.nanpercentile([value(rows) for rows in drawn], [2.5, 97.5])]
        )

    def kept_of(rows: np.ndarray) -> float:
        positive = np.clip(gains[rows], 0, None)
        return float((positive * kept[rows]).sum() / positive.sum()) if positive.any() else np.nan

    return {
        "num_cells": len(cells),
        "kept": float(kept.mean()),
        "precision": share(helps, kept),
        "recall": share(kept, helps),
        "harmful_refused": share(~kept, harms),
        "worst": float(left.min()),
        "share_harmed": float((left < -HARM).mean()),
        "share_harmed_interval": interval(lambda rows: float((left[rows] < -HARM).mean())),
        "share_surely_harmed": float((kept & surely).mean()),
        "mean_gain": float(left.mean()),
        "mean_gain_interval": interval(lambda rows: float(left[rows].mean())),
        "gain_kept": kept_of(np.arange(len(cells))),
        "gain_kept_interval": interval(kept_of),
        "net_gain_kept": float(left.sum() / gains.sum()) if gains.sum() > 0 else None,
    }


def threshold_of(cells: Sequence[Measured], scores: np.ndarray, most_harm: float) -> float:
    """The threshold on scores that rise with help with the best mean gain, among those that let no more than a share of the cells harm."""
    gains = gains_of(cells)
    usable = np.isfinite(scores) & ~refused(cells)
    values = np.unique(scores[usable])
    best, found = 0.0, np.inf
    # Between two cells' scores, so that neither lies on it.
    for threshold in [*((values[1:] + values[:-1]) / 2), *(values[:1] - 1e-9)]:
        left = np.where(usable & (scores >= threshold), gains, 0.0)
        if (left < -HARM).mean() <= most_harm and left.mean() > best:
            best, found = float(left.mean()), float(threshold)
    return found


def by_method(cells: Sequence[Measured], kept: np.ndarray) -> dict[str, dict[str, Any]]:
    """What a gate does to each method's cells: one that refused all of a bad method, and nothing else, would be of no use to the others."""
    found = {}
    for method in dict.fromkeys(cell.method for cell in cells):
        rows = [row for row, cell in enumerate(cells) if cell.method == method]
        found[method] = rates([cells[row] for row in rows], kept[rows])
    return found


def auc_within(cells: Sequence[Measured], scores: np.ndarray) -> float | None:
    """The mean of the methods' own [`auc`], weighed by their cells: what tells methods apart counts for nothing."""
    gains, methods = gains_of(cells), np.array([cell.method for cell in cells])
    found = [(auc(gains[methods == method], scores[methods == method]), (methods == method).sum())
             for method in np.unique(methods)]  # fmt: skip
    known = [(area, number) for area, number in found if area is not None]
    return float(np.average([area for area, _ in known], weights=[number for _, number in known])) if known else None


def auc(gains: np.ndarray, scores: np.ndarray) -> float | None:
    """Chance that of a helpful and a harmful adaptation the first has the higher score; those that changed nothing do not count."""
    counted = np.isfinite(scores) & (gains != 0)
    return float(roc_auc_score(gains[counted] > 0, scores[counted])) if len({*(gains[counted] > 0)}) == 2 else None


# ---- single signals and regressions --------------------------------------------------------------------------------------------------


def single(calibration: Sequence[Measured], test: Sequence[Measured], name: str) -> dict[str, Any] | None:
    """A gate by one signal; None where too few cells have it, or it is the same for all."""
    values, of_test = matrix(calibration, [name])[:, 0], matrix(test, [name])[:, 0] if test else np.empty(0)
    gains = gains_of(calibration)
    area = auc(gains, values)
    if area is None or np.isfinite(values).mean() < 0.3 or len(np.unique(values[np.isfinite(values)])) < 3:
        return None
    sign = 1.0 if area >= 0.5 else -1.0
    has = np.isfinite(values)
    found: dict[str, Any] = {
        "signals": [name], "sign": sign, "coverage": float(has.mean()), "auc": max(area, 1 - area),
        "spearman": float(spearmanr(values[has], gains[has]).statistic),
        "auc_within": auc_within(calibration, sign * values),
        "auc_test": auc(gains_of(test), sign * of_test) if test else None, "policies": {},
    }  # fmt: skip
    for policy, most_harm in POLICIES.items():
        threshold = threshold_of(calibration, sign * values, most_harm)
        found["policies"][policy] = {
            "threshold": threshold,
            "calibration": rates(calibration, np.nan_to_num(sign * values, nan=-np.inf) >= threshold),
            "test": rates(test, np.nan_to_num(sign * of_test, nan=-np.inf) >= threshold) if test else None,
        }
    return found


class Regression:
    """A logistic regression on clipped and standardised signals; what is lacking has the usual value.

    Args:
        names: Signals.
        cells: Cells to fit; those that changed nothing do not count.
    """

    def __init__(self, names: Sequence[str], cells: Sequence[Measured]) -> None:
        self.names, values, gains = list(names), matrix(cells, names), gains_of(cells)
        self.low, self.high = np.nanpercentile(values, _CLIPPED, axis=0)
        clipped = np.clip(values, self.low, self.high)
        self.mean, self.scale = np.nanmean(clipped, axis=0), np.maximum(np.nanstd(clipped, axis=0), 1e-9)
        counted = (gains != 0) & ~refused(cells)
        self.model = LogisticRegression(C=1.0).fit(self._standardised(values)[counted], gains[counted] > 0)

    def _standardised(self, values: np.ndarray) -> np.ndarray:
        return np.nan_to_num((np.clip(values, self.low, self.high) - self.mean) / self.scale, nan=0.0)

    def scores(self, cells: Sequence[Measured]) -> np.ndarray:
        """The probability of each adaptation to help."""
        return np.asarray(self.model.predict_proba(self._standardised(matrix(cells, self.names)))[:, 1])

    def to_json(self) -> dict[str, Any]:
        """What a gate is made of."""
        columns = zip(self.names, self.low, self.high, self.mean, self.scale, self.model.coef_[0], strict=True)
        fields = ("name", "low", "high", "mean", "scale", "weight")
        signals = [dict(zip(fields, [name, *map(float, rest)], strict=True)) for name, *rest in columns]
        return {"signals": signals, "intercept": float(self.model.intercept_[0])}


def out_of_task(names: Sequence[str], cells: Sequence[Measured]) -> np.ndarray:
    """Scores of each task's cells by a regression on the others."""
    scores = np.full(len(cells), np.nan)
    tasks = np.array([cell.task for cell in cells])
    for task in np.unique(tasks):
        others = [cell for cell, of in zip(cells, tasks, strict=True) if of != task]
        rows = np.flatnonzero(tasks == task)
        scores[rows] = Regression(names, others).scores([cells[row] for row in rows])
    return scores


def combined(calibration: Sequence[Measured], test: Sequence[Measured], names: Sequence[str]) -> dict[str, Any]:
    """A gate by a regression, whose threshold is chosen by scores that each task's own cells had no part in."""
    scores, gains = out_of_task(names, calibration), gains_of(calibration)
    whole = Regression(names, calibration)
    of_test = whole.scores(test) if test else np.empty(0)
    counted = gains != 0
    found: dict[str, Any] = {
        "signals": list(names), "auc": auc(gains, scores), "auc_within": auc_within(calibration, scores),
        "brier": float(np.mean((scores[counted] - (gains[counted] > 0)) ** 2)),
        "auc_test": auc(gains_of(test), of_test) if test else None,
        "fitted": whole.to_json(), "reliability": reliability(scores, gains),
        "reliability_test": reliability(of_test, gains_of(test)) if test else None, "policies": {},
    }  # fmt: skip
    for policy, most_harm in POLICIES.items():
        threshold = threshold_of(calibration, scores, most_harm)
        found["policies"][policy] = {
            "threshold": threshold,
            "calibration": rates(calibration, scores >= threshold),
            "test": rates(test, of_test >= threshold) if test else None,
        }
    return found


def reliability(scores: np.ndarray, gains: np.ndarray, num_bins: int = 5) -> list[dict[str, float]]:
    """By fifths of the scores: what was said, and the share that did help, of those that changed anything."""
    counted = np.flatnonzero(gains != 0)
    order = counted[np.argsort(scores[counted], kind="stable")]
    return [
        {"said": float(scores[rows].mean()), "helped": float((gains[rows] > 0).mean()), "num_cells": len(rows)}
        for rows in np.array_split(order, num_bins)
        if len(rows)
    ]


# ---- all of it -----------------------------------------------------------------------------------------------------------------------


def analysed(
    calibration: Sequence[Measured],
    test: Sequence[Measured],
    *,
    names: Sequence[str] | None = None,
    num_combined: int = 14,
    most: int = 3,
    policy: str = "5 % harm",
) -> dict[str, Any]:
    """Gates without a choice, by single signals and by combinations; the best combination of each size by its calibration tasks."""
    every = list(dict.fromkeys(name for cell in calibration for name in cell.numbers if name != "is_finite"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant inputs, and of empty means of what no cell has
        singles = [found for name in every if (found := single(calibration, test, name)) is not None]
        singles.sort(key=lambda found: -found["auc"])
        usable = [found["signals"][0] for found in singles if found["coverage"] >= 0.5]
        parts = list(names) if names else usable[:num_combined]
        combinations = [
            combined(calibration, test, chosen)
            for size in range(1, most + 1)
            for chosen in itertools.combinations(parts, size)
        ]
        fixed = {
            group: {name: rates(cells, kept, num_draws=1000) for name, kept in _without_choice(cells).items()}
            for group, cells in (("calibration", calibration), ("test", test))
            if cells
        }
    combinations.sort(key=lambda found: -found["policies"][policy]["calibration"]["mean_gain"])
    chosen = _chosen(combinations, policy)
    if chosen is not None:
        names, threshold = [signal["name"] for signal in chosen["signals"]], chosen["threshold"]
        chosen["rates"] = {
            "calibration": rates(calibration, out_of_task(names, calibration) >= threshold, num_draws=1000)
        }
        if test:
            scores = Regression(names, calibration).scores(test)
            chosen["rates"]["test"] = rates(test, scores >= threshold, num_draws=1000)
            chosen["rates_by_method"] = by_method(test, scores >= threshold)
    return {
        "policy": policy, "fixed": fixed, "single": singles,
        "combinations": combinations[:40], "num_combinations": len(combinations),
        "chosen": chosen,
        "cells": {group: [vars(cell) | {"numbers": None} for cell in cells]
                  for group, cells in (("calibration", calibration), ("test", test))},
    }  # fmt: skip


def _without_choice(cells: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Gates that have nothing to be calibrated."""
    form = np.array([not cell.numbers.get("lost_forms") for cell in cells])
    fell = np.array([(cell.numbers.get("held_out_fall") or 0.0) > 0 for cell in cells])
    return {
        "none: all are kept": np.ones(len(cells), dtype=bool),
        "form": form,
        "form, and the loss on neighbours fell": form & fell,
        "what labels would say": gains_of(cells) > 0,
    }


def _chosen(combinations: Sequence[dict[str, Any]], policy: str) -> dict[str, Any] | None:
    """The combination with the best mean on tasks that it was not fitted on; of nearly equal ones, that of the fewest signals."""
    if not combinations:
        return None
    best = combinations[0]["policies"][policy]["calibration"]["mean_gain"]
    near = [found for found in combinations if found["policies"][policy]["calibration"]["mean_gain"] >= 0.97 * best]
    found = min(near, key=lambda found: (len(found["signals"]), found["brier"]))
    kept = {name: found[name] for name in ("auc", "auc_within", "auc_test", "reliability", "reliability_test")}
    return found["fitted"] | {"threshold": found["policies"][policy]["threshold"]} | kept


# ---- tables --------------------------------------------------------------------------------------------------------------------------

_HEADER = [
    "kept",
    "prec.",
    "recall",
    "harm refused",
    "worst",
    "harmed",
    "surely",
    "mean gain",
    "gain kept",
    "net kept",
]


def _row(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["-"] * len(_HEADER)
    shares = [found[name] for name in ("kept", "precision", "recall", "harmful_refused")]
    return [
        *["-" if share is None else f"{share:.0%}" for share in shares],
        f"{found['worst']:.1f}",
        f"{found['share_harmed']:.1%}",
        f"{found['share_surely_harmed']:.1%}",
        f"{found['mean_gain']:+.2f}",
        *["-" if (share := found[name]) is None else f"{share:.0%}" for name in ("gain_kept", "net_gain_kept")],
    ]


def print_tables(result: dict[str, Any], num_rows: int = 25) -> None:
    """Prints what was found, calibration beside test."""
    policy = result["policy"]
    for group, found in result["fixed"].items():
        cells = result["cells"][group]
        print(f"\nWithout a choice, {group}: {len(cells)} cells of {len({cell['task'] for cell in cells})} tasks")
        print(format_table(["gate", *_HEADER], [[name, *_row(of)] for name, of in found.items()]))
    group = "test" if "test" in result["fixed"] else "calibration"
    for title, found in (("Single signals", result["single"]), ("Combinations", result["combinations"])):
        for name in dict.fromkeys([policy, "no harm", "best mean"]) if title == "Combinations" else [policy]:
            print(f"\n{title}; thresholds for {name!r}; the rates are those of the {group} tasks")
            rows = [
                [", ".join(one["signals"]), _number(one["auc"]), _number(one["auc_within"]), _number(one["auc_test"]),
                 f"{one['policies'][name]['threshold']:.4g}",
                 f"{one['policies'][name]['calibration']['mean_gain']:+.2f}", *_row(one["policies"][name][group])]
                for one in found[:num_rows]
            ]  # fmt: skip
            print(format_table(["signals", "AUC", "within", "AUC test", "threshold", "mean cal.", *_HEADER], rows))
    if (chosen := result["chosen"]) is not None:
        print(f"\nChosen: {', '.join(signal['name'] for signal in chosen['signals'])}, from {chosen['threshold']:.3f}")
        rows = [[group, *_row(chosen["rates"][group])] for group in result["fixed"]]
        print(format_table(["tasks", *_HEADER], rows))
        rows = [[name, *_row(of)] for name, of in chosen.get("rates_by_method", {}).items()]
        print(format_table(["method", *_HEADER], rows) if rows else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
