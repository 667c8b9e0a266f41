"""SoftEM, the metric of ReCross, as a module of `evaluate`.

This file stands alone, so that `evaluate.load("path/to/soft_em.py")` takes it.
"""

import re
import string

import datasets
import evaluate

_CITATION = """\
@inproceedings{lin2022recross,
  title={Unsupervised Cross-Task Generalization via Retrieval Augmentation},
  author={Lin, Bill Yuchen and Tan, Kangmin and Miller, Chris and Tian, Beiwen and Ren, Xiang},
  booktitle={Advances in Neural Information Processing Systems},
  year={2022}
}
"""

_DESCRIPTION = """\
SoftEM (Lin et al., 2022, section 4): the share of predictions that, after normalisation, equal a reference, contain it or
are contained in it. Normalisation is SQuAD's: lower case, no punctuation, no articles (a, an, the), single spaces. An
empty text never matches.

SoftEM is the paper's metric, and it can be gamed: an answer that lists every label contains the right one. Exact match
with the same normalisation is therefore reported beside it.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of str): the generated texts.
    references (list of str, or list of list of str): one or several accepted answers for each prediction; the best one
        counts.
Returns:
    soft_em (float): percentage of predictions that match a reference softly.
    exact_match (float): percentage of predictions that equal a reference.
Examples:
    >>> import evaluate
    >>> metric = evaluate.load("src/recross_hf/soft_em.py")
    >>> results = metric.compute(
    ...     predictions=["The answer is B.", "positive", ""], references=[["B", "option B"], ["Positive!"], ["no"]]
    ... )
    >>> {name: round(value, 1) for name, value in results.items()}
    {'soft_em': 66.7, 'exact_match': 33.3}
"""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower-cases `text` and removes punctuation, articles and extra spaces, in this order (as SQuAD's script does)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, references: list[str]) -> bool:
    """Whether the normalised `prediction` equals a reference; an empty text never does."""
    prediction = normalize_answer(prediction)
    return bool(prediction) and any(prediction == normalize_answer(reference) for reference in references)


def soft_match(prediction: str, references: list[str]) -> bool:
    """Whether the normalised `prediction` contains, or is contained in, a reference; an empty text never does."""
    prediction = normalize_answer(prediction)
    if not prediction:
        return False
    normalized = (normalize_answer(reference) for reference in references)
    return any(reference and (prediction in reference or reference in prediction) for reference in normalized)


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """SoftEM and exact match in percent, each prediction against its best reference."""
    pairs = list(zip(predictions, references, strict=True))
    return {
        "soft_em": 100 * sum(soft_match(*pair) for pair in pairs) / len(pairs),
        "exact_match": 100 * sum(exact_match(*pair) for pair in pairs) / len(pairs),
    }


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class SoftEM(evaluate.Metric):
    """See the module's description; the docstring of the class is made of it."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features(
                    {
                        "predictions": datasets.Value("string"),
                        "references": datasets.List(datasets.Value("string")),
                    }
                ),
                datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
            ],
            reference_urls=["https://arxiv.org/abs/2204.07937"],
        )

    def add_batch(self, *, predictions: list[str] | None = None, references: list | None = None, **kwargs) -> None:
        """Adds predictions and their references to what `compute` will score."""
        # With two forms of references, the base class infers the form from the first and fails where there is none.
        if predictions is not None and not len(predictions):
            raise ValueError("SoftEM of no predictions is undefined: expected at least one, found none.")
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def _compute(self, predictions: list[str], references: list) -> dict[str, float]:
        accepted = [[reference] if isinstance(reference, str) else reference for reference in references]
        return score(predictions, accepted)
