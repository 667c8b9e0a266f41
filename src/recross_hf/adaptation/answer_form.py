"""The form of answers: what can be said of them without knowing the right ones, and whether an adaptation left that form."""

from __future__ import annotations

import math
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..core.hashing import digest_of
from ..data.conversations import as_json
from ..models.generation import Answer
from ..soft_em import answer_key

MOST_ANSWERS = 64
"""Number of distinct inputs that are answered for the gate: of thousands, so many tell a loss of a quarter from chance."""

SIGNIFICANCE = 0.05
"""Chance at which a loss of form counts. Of the answers whose form changed, as many would gain it as lose it if the adaptation did
nothing to it: five that lose it and none that gains it have a chance of 3 %, four have 6 %. So of fewer than five inputs nothing is said."""
LARGEST_LOSS = 0.25
"""Share of the answers that may lose a form. With hundreds of inputs a few answers are significant, and no reason to give an adaptation up; of
sixteen inputs the chance asks for five answers, which is more."""
FEWEST_ANSWERS = 8
"""Number of answers below which it says nothing that they are all the same, or a few."""
COLLAPSED_SHARE = 0.9
"""Share of equal answers that is a collapse, fifteen of sixteen: where one answer is right for two inputs in three, chance gives so many
in 1.4 % of the draws."""
ANSWERS_A_LABEL = 4
"""Number of answers to each label, in the mean, from which on a base is taken to answer in labels: four labels at most of sixteen answers."""
MUCH_LONGER = 4
"""Ratio to the usual length from which on an answer is long, or short: answers in a word or in three are of one form."""
FEW_CHARACTERS = 40
"""Number of characters that say nothing of a length: "yes" and "it is not known" differ by less."""
_REPEATED_SHARE = 0.5
_WORDS_A_GRAM, _CHARACTERS_A_GRAM = 3, 6
_CJK = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")


@dataclass(frozen=True)
class AnswerForm:
    """What can be said of answers without knowing the right ones.

    Args:
        num_answers: Number of answers, to as many distinct inputs.
        most_frequent: The most frequent answer.
        most_frequent_share: Share of the answers that are the most frequent one.
        empty_share: Share of answers without text, which are wrong for certain.
        unended_share: Share of answers that were cut at `max_target_length`: the model found no end.
        num_with_options: Number of inputs that name the answers to choose from ([`named_options`]), or have `choices`.
        among_options_share: Share of their answers that are one of those; None where there is no such input.
        repetitive_share: Share of answers that repeat themselves.
        median_characters: The usual length.
        script: Script of most answers' letters, such as LATIN; empty where they have no letters.
        script_share: Share of the answers with letters that are in this script.
    """

    num_answers: int
    most_frequent: str
    most_frequent_share: float
    empty_share: float
    unended_share: float
    num_with_options: int = 0
    among_options_share: float | None = None
    repetitive_share: float = 0.0
    median_characters: float = 0.0
    script: str = ""
    script_share: float = 0.0

    @classmethod
    def of(cls, answers: Sequence[Answer], options: Sequence[frozenset[str]]) -> AnswerForm:
        """Counts answers; their order counts for nothing.

        Args:
            options: For each answer, those that its input names ([`named_options`]).
        """
        texts = [answer.text for answer in answers]
        text, count = min(Counter(texts).items(), key=lambda item: (-item[1], item[0]))
        among = [answer_key(text) in named for text, named in zip(texts, options, strict=True) if named]
        script, in_script = _main_script(texts)
        return cls(
            num_answers=len(answers),
            most_frequent=text,
            most_frequent_share=count / len(answers),
            empty_share=_share(not text.strip() for text in texts),
            unended_share=_share(not answer.is_ended for answer in answers),
            num_with_options=len(among),
            among_options_share=_share(among) if among else None,
            repetitive_share=_share(map(is_repetitive, texts)),
            median_characters=float(statistics.median(map(len, texts))),
            script=script,
            script_share=in_script,
        )


def gate_inputs(inputs: Sequence[str]) -> list[str]:
    """The distinct inputs that are answered for the gate, at most [`MOST_ANSWERS`], whatever order they come in."""
    return sorted(set(inputs), key=lambda text: (digest_of(text), str(as_json([text]))))[:MOST_ANSWERS]


def lost_form(
    inputs: Sequence[str], base: Sequence[Answer], adapted: Sequence[Answer], options: Sequence[frozenset[str]]
) -> list[str]:
    """Says, a sentence for each, what form of the base's answers the adapted model's do not have any more; nothing where they kept it.

    A form is lost where so many more answers lose it than gain it that chance is no explanation (a sign test over the inputs, at
    [`SIGNIFICANCE`]), and more than [`LARGEST_LOSS`] of them do. What the base's answers did not have cannot be lost.

    Args:
        inputs: Distinct inputs.
        base: The base's answers to them.
        adapted: The adapted model's answers to them.
        options: For each input, the answers that it names ([`named_options`]).
    """
    before, after = [answer.text for answer in base], [answer.text for answer in adapted]
    losses = [
        _lost("{} of {} answers were among the options of their input; now {} are.",
              *([_among(texts, options) for texts in (before, after)])),
        _labels_lost(inputs, before, after, options),
        _lost("{} of {} answers had text; now {} have.", *[[bool(text.strip()) for text in texts] for texts in (before, after)]),
        _lost("{} of {} answers ended; now {} do.", *[[answer.is_ended for answer in answers] for answers in (base, adapted)]),
        _lost("{} of {} answers were free of repetitions; now {} are.",
              *[[not is_repetitive(text) for text in texts] for texts in (before, after)]),
        _script_lost(before, after),
        *_length_lost(inputs, base, after, options),
        _collapsed(before, after),
    ]  # fmt: skip
    return [loss for loss in losses if loss is not None]


def _lost(words: str, before: Sequence[bool | None], after: Sequence[bool | None]) -> str | None:
    """The sentence, where significantly many answers had a form and lost it; None of an answer says that it is not for this form."""
    pairs = [(had, has) for had, has in zip(before, after, strict=True) if had is not None and has is not None]
    lost, gained = sum(had and not has for had, has in pairs), sum(has and not had for had, has in pairs)
    if lost - gained <= LARGEST_LOSS * len(pairs) or chance_of_loss(lost, gained) > SIGNIFICANCE:
        return None
    return words.format(sum(had for had, _ in pairs), len(pairs), sum(has for _, has in pairs) or "none")


def chance_of_loss(lost: int, gained: int) -> float:
    """The chance that of `lost + gained` changes so many or more are losses, where each is a loss or a gain with the same chance."""
    changes = lost + gained
    ways: int = sum(math.comb(changes, number) for number in range(lost, changes + 1))
    return ways / 2.0**changes


def _among(texts: Sequence[str], options: Sequence[frozenset[str]]) -> list[bool | None]:
    return [answer_key(text) in named if named else None for text, named in zip(texts, options, strict=True)]


def _labels_lost(
    inputs: Sequence[str], before: Sequence[str], after: Sequence[str], options: Sequence[frozenset[str]]
) -> str | None:
    """Of a base that answers in a few labels: whether the answers are others. What an input names or says is an answer, too."""
    labels = {answer_key(text) for text in before} - {""}
    if len(before) < FEWEST_ANSWERS or not 2 <= len(labels) <= len(before) / ANSWERS_A_LABEL:
        return None
    had = [answer_key(text) in labels for text in before]
    has = [
        answer_key(new) in labels | named or _says(text, new)
        for text, new, named in zip(inputs, after, options, strict=True)
    ]
    shown = ", ".join(repr(label[:40]) for label in sorted(labels))
    return _lost(
        f"{{}} of {{}} answers were one of {len(labels)} ({shown}); now {{}} are, or stand in the input.", had, has
    )


def _says(text: str, answer: str) -> bool:
    """Whether a text holds an answer, word for word."""
    key = answer_key(answer)
    return bool(key) and f" {key} " in f" {answer_key(text)} "


def _script_lost(before: Sequence[str], after: Sequence[str]) -> str | None:
    script, _ = _main_script(before)
    had, has = (
        [None if not (own := script_of(text)) else own == script for text in texts] for texts in (before, after)
    )
    return _lost(f"{{}} of {{}} answers were in {script.capitalize()} letters; now {{}} are.", had, has)


def _length_lost(
    inputs: Sequence[str], base: Sequence[Answer], after: Sequence[str], options: Sequence[frozenset[str]]
) -> list[str | None]:
    """Answers that are much longer than the base's usual one, or much shorter and neither named by their input nor from it."""
    lengths = [len(answer.text) for answer in base if answer.is_ended and not is_repetitive(answer.text)]
    if 2 * len(lengths) < len(base):
        return []  # a length at which answers were cut, or that repetitions made, is no form
    usual = statistics.median(lengths)
    most = max(MUCH_LONGER * usual, usual + FEW_CHARACTERS)
    long = _lost(
        f"{{}} of {{}} answers had at most {most:.0f} characters, where {usual:.0f} were usual; now {{}} have.",
        [len(answer.text) <= most for answer in base],
        [len(text) <= most for text in after],
    )
    if usual < FEW_CHARACTERS:
        return [long]
    least = usual / MUCH_LONGER
    short = _lost(
        f"{{}} of {{}} answers had at least {least:.0f} characters, where {usual:.0f} were usual; now {{}} have, or stand in the input.",
        [len(answer.text) >= least for answer in base],
        [
            len(new) >= least or answer_key(new) in named or _says(text, new)
            for text, new, named in zip(inputs, after, options, strict=True)
        ],
    )
    return [long, short]


def _collapsed(before: Sequence[str], after: Sequence[str]) -> str | None:
    """Answers that are all the same are a collapse only if those of the base were not: of a task with two answers, many are."""
    (text, same), was = (
        min(Counter(after).items(), key=lambda item: (-item[1], item[0])),
        max(Counter(before).values()),
    )
    if len(after) < FEWEST_ANSWERS or same < COLLAPSED_SHARE * len(after) or same < 2 * was:
        return None
    return f"At most {was} of {len(before)} answers were the same; now {same} are {text[:40]!r}."


def is_repetitive(text: str) -> bool:
    """Whether half of a text's sequences of three words, or of six characters where it has few words, repeat an earlier one."""
    words = text.split()
    units, size = (words, _WORDS_A_GRAM) if len(words) >= 3 * _WORDS_A_GRAM else ([*text], _CHARACTERS_A_GRAM)
    if len(units) < 3 * size:
        return False
    grams = [tuple(units[start : start + size]) for start in range(len(units) - size + 1)]
    return 1 - len(set(grams)) / len(grams) > _REPEATED_SHARE


def script_of(text: str) -> str:
    """The script of most letters of a text, such as LATIN or CJK, as Unicode names it; empty where it has no letters."""
    counts = Counter(script for character in text if (script := _script(character)))
    return min(counts.items(), key=lambda item: (-item[1], item[0]))[0] if counts else ""


@lru_cache(maxsize=1 << 16)
def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    script = name.partition(" ")[0]
    return "CJK" if script in _CJK else script  # Japanese is written in all of them


def _main_script(texts: Sequence[str]) -> tuple[str, float]:
    scripts = Counter(script for text in texts if (script := script_of(text)))
    if not scripts:
        return "", 0.0
    script, count = min(scripts.items(), key=lambda item: (-item[1], item[0]))
    return script, count / scripts.total()


def _share(holds: Iterable[bool]) -> float:
    values = [*holds]
    return sum(values) / len(values)
