"""SoftEM, the metric of ReCross, as a module of `evaluate`.

This file stands alone, so that `evaluate.load("path/to/soft_em.py")` takes it.
"""

import logging
import re
import string
import unicodedata
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache

import datasets
import evaluate
import pandas

logger = logging.getLogger(__name__)

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

Of some answers normalisation leaves nothing: "A", "the" and "+" never match in SoftEM, which is said in a warning. Exact match
compares them with their articles, and those without letters or digits with their punctuation: "(A)" equals "a".

Normalisation takes signs and points from numbers, as SQuAD's does: "-5" equals "5" and "3.5" equals "35", in both metrics. Where
answers are numbers, compare them as numbers.

Punctuation is that of ASCII, as in SQuAD's script: a curly apostrophe or a full-width stop stays, so that "don\u2019t" equals neither
"don't" nor "dont". Write references with the characters that the model writes.
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
_INVISIBLE = dict.fromkeys((0x200B, 0x2060, 0xFEFF))  # zero-width space, word joiner, byte-order mark
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower-cases `text` and removes punctuation, articles and extra spaces, in this order (as SQuAD's script does)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def answer_key(text: str) -> str:
    """What makes two answers the same one: the normalised text, or what is left of it if normalising less where that is empty.

    "A" and "(A)" are "a", as "B" and "(B)" are "b"; "+" is itself. Only a blank text is empty.
    """
    lower = " ".join(text.lower().split())
    return normalize_answer(text) or " ".join(lower.translate(_PUNCTUATION).split()) or lower


def exact_match(prediction: str, references: list[str]) -> bool:
    """Whether `prediction` equals a reference ([`answer_key`]); a blank text never does."""
    prediction = answer_key(_composed(prediction))
    return bool(prediction) and any(prediction == answer_key(_composed(reference)) for reference in references)


def soft_match(prediction: str, references: list[str]) -> bool:
    """Whether the normalised `prediction` contains, or is contained in, a reference; an empty text never does."""
    prediction = normalize_answer(_composed(prediction))
    if not prediction:
        return False
    normalized = (normalize_answer(_composed(reference)) for reference in references)
    return any(reference and (prediction in reference or reference in prediction) for reference in normalized)


def _composed(text: str) -> str:
    """The text with each accent in its letter (NFC) and without marks that nobody sees: what readers take for the same text is one."""
    return unicodedata.normalize("NFC", text.translate(_INVISIBLE))


def warn_of_unmatchable(references: Iterable[Iterable[str]]) -> None:
    """Warns, once, if SoftEM cannot match some references, as normalisation leaves nothing of them."""
    references = [list(accepted) for accepted in references]
    if without := sum(not accepted for accepted in references):
        _warn_once(
            f"{without} of {len(references)} predictions have no references: every answer to them is taken for wrong. Leave them out, or "
            "write what the model is to answer."
        )
    found = [text for accepted in references for text in accepted if not normalize_answer(text)]
    if found:
        _warn_once(
            f"{len(found)} references, such as {min(found)!r}, are nothing after normalisation (articles, punctuation): SoftEM takes "
            "every answer to them for wrong. Look at exact match, or spell the answers out."
        )


@lru_cache(maxsize=1024)
def _warn_once(message: str) -> None:
    logger.warning(message)


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """SoftEM and exact match in percent, each prediction against its best reference.

    Raises:
        ValueError: there is no prediction, there are not as many lists of references, or one is a text in place of a list.
    """
    if not predictions or len(predictions) != len(references):
        raise ValueError(
            f"Expected at least one prediction, and a list of references for each, found {len(predictions)} and {len(references)}."
        )
    if isinstance(predictions, str) or any(isinstance(accepted, str) for accepted in references):
        raise ValueError(
            "Expected lists of texts, found one text, whose letters would be compared. Pass `[text]` in its place."
        )
    pairs = list(zip(predictions, references, strict=True))
    warn_of_unmatchable(references)
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
            # One reference each is taken, too, as a list of one. With two forms, `evaluate` would infer the form from the first and
            # make text of a list that comes later.
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
            reference_urls=["https://arxiv.org/abs/2204.07937"],
        )

    def add_batch(
        self, *, predictions: Iterable[str] | None = None, references: Iterable | None = None, **kwargs
    ) -> None:
        """Adds predictions and their references to what `compute` will score.

        Raises:
            ValueError: there are no predictions, not as many references, or one is no text or list of texts.
        """
        if predictions is None or references is None:
            raise ValueError("Expected predictions and references, found one of them missing. Pass both.")
        for name, texts in (("predictions", predictions), ("references", references)):
            # The letters of a text, the keys of a mapping, a table's columns and a set in no order would be scored against one another.
            if isinstance(texts, str | bytes | Mapping | Set | pandas.DataFrame):
                raise ValueError(
                    f"Expected a list of {name}, found {type(texts).__name__}. Pass a list, in the order of the inputs; of one text, "
                    "`[text]`."
                )
        predictions = [_text(text, "prediction", row) for row, text in enumerate(predictions)]
        references = [_texts(texts, row) for row, texts in enumerate(references)]
        if not predictions:
            raise ValueError("SoftEM of no predictions is undefined: expected at least one, found none.")
        if len(predictions) != len(references):
            raise ValueError(
                f"Expected as many references as predictions, found {len(references)} and {len(predictions)}. Several references of "
                "one prediction are a list within the list."
            )
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def compute(
        self, *, predictions: Iterable[str] | None = None, references: Iterable | None = None, **kwargs
    ) -> dict | None:
        """Scores what is given and what was added before.

        Raises:
            ValueError: as `add_batch`, or nothing was given or added.
        """
        if kwargs:
            raise ValueError(
                f"Expected `predictions` and `references`, found {', '.join(sorted(kwargs))}. SoftEM has no other arguments."
            )
        if predictions is None and references is None and self.writer is None and self.num_process == 1:
            raise ValueError("Expected predictions and references, found none given and none added before. Pass both.")
        return super().compute(predictions=predictions, references=references)

    def add(self, *, prediction: str | None = None, reference: str | Iterable[str] | None = None, **kwargs) -> None:
        """Adds one prediction and its reference or references. It raises as `add_batch` does."""
        super().add(prediction=_text(prediction, "prediction", 0), reference=_texts(reference, 0), **kwargs)

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return score(predictions, references)


def _text(value: object, what: str, row: int) -> str:
    if not isinstance(value, str):
        raise ValueError(
            f"Expected text as each {what}, found {type(value).__name__} in row {row} ({str(value)[:40]!r}). Pass strings."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Expected text as each {what}, found {value[error.start]!a} in row {row}, half of a surrogate pair and no character. Read "
            "the text as UTF-8."
        ) from error
    return str(value)  # an array's are of NumPy's type


def _texts(value: object, row: int) -> list[str]:
    """The references of one prediction: `evaluate` would make one text of a list that stands among texts."""
    if isinstance(value, str):
        return [str(value)]
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise ValueError(
            f"Expected a text or a list of texts as the references of each prediction, found {type(value).__name__} in row {row} "
            f"({str(value)[:40]!r}). Pass strings, or lists of strings."
        )
    return [_text(text, "reference", row) for text in value]
