import pytest
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.adaptation.answer_form import AnswerForm, chance_of_loss, is_repetitive, lost_form, script_of
from recross_hf.adaptation.named_options import named_options
from recross_hf.models.generation import Answer

PLAIN = [f"Say something of thing number {number}" for number in range(16)]
ASKED = [f"{text}. Options: - fine - dull - odd" for text in PLAIN]
FREE = [f"it is a thing of kind {number}" for number in range(16)]
PROSE = [f"This is the summary of text {number}, in which a man walks home and then sleeps." for number in range(16)]
LABELS = ["fine", "dull", "odd", "fine"] * 4
HALVES = ["yes"] * 8 + ["no"] * 8


def losses(before, after, inputs=PLAIN, ended=(16, 16)):
    inputs = inputs[: len(before)]
    pair = [
        [Answer(text, place < number) for place, text in enumerate(texts)]
        for texts, number in zip((before, after), ended, strict=True)
    ]
    return lost_form(inputs, *pair, [named_options(text) for text in inputs])


# ---- what is lost ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "inputs", "expected"),
    [
        (LABELS[:12] + FREE[12:], LABELS[:3] + FREE[3:], ASKED, "12 of 16 answers were among the options of their input; now 3 are."),
        (LABELS, [""] * 9 + LABELS[9:], ASKED, "16 of 16 answers were among the options of their input; now 7 are."),
        (HALVES, FREE, PLAIN, "16 of 16 answers were one of 2 ('no', 'yes'); now none are, or stand in the input."),
        (FREE, [""] * 5 + FREE[5:], PLAIN, "16 of 16 answers had text; now 11 have."),
        (FREE, [f"{text} {' and so on' * 9}" for text in FREE], PLAIN,
         "16 of 16 answers were free of repetitions; now none are."),
        (FREE, ["это вещь"] * 3 + [f"вещь номер {number}" for number in range(13)], PLAIN,
         "16 of 16 answers were in Latin letters; now none are."),
        (FREE, [f"{text}. {prose}" for text, prose in zip(FREE, PROSE, strict=True)], PLAIN,
         "16 of 16 answers had at most 92 characters, where 23 were usual; now none have."),
        (PROSE, ["fine", "dull", "odd", "new"] * 4, PLAIN,
         "16 of 16 answers had at least 18 characters, where 73 were usual; now none have, or stand in the input."),
        (FREE, ["yes"] * 15 + ["no"], PLAIN, "At most 1 of 16 answers were the same; now 15 are 'yes'."),
        (HALVES, ["yes"] * 16, PLAIN, "At most 8 of 16 answers were the same; now 16 are 'yes'."),
    ],
)  # fmt: skip
def test_a_form_that_is_lost_is_named(before, after, inputs, expected):
    assert expected in losses(before, after, inputs)


def test_answers_that_do_not_end_are_named():
    assert losses(FREE, FREE, ended=(14, 3)) == ["14 of 16 answers ended; now 3 do."]


@pytest.mark.parametrize(
    ("before", "after", "inputs"),
    [
        # The same, or other answers in the same form.
        (FREE, FREE[::-1], PLAIN),
        (LABELS, LABELS[::-1], ASKED),
        (HALVES, HALVES[::-1], PLAIN),
        (["yes"] * 9 + ["no"] * 7, ["yes"] * 16, PLAIN),
        (["Yes."] * 8 + ["no"] * 8, HALVES, PLAIN),
        # The form gets better: answers to choose from, in place of free text.
        (FREE, LABELS, ASKED),
        (PROSE, LABELS, ASKED),
        (FREE, ["fine"] * 14 + ["dull"] * 2, ASKED),
        # The base had no form that could be lost.
        ([""] * 16, FREE, PLAIN),
        (["fine "] * 2 + FREE[2:], FREE, ASKED),
        ([f"{number} {'so ' * 40}" for number in range(16)], PROSE, PLAIN),
        ([f"{number} {'so ' * 40}" for number in range(16)], FREE, PLAIN),
        (["positive"] * 16, FREE, PLAIN),
        # From a base that answers in a few words whatever is asked, to what stands in the input.
        (HALVES, [f"number {number}" for number in range(16)], PLAIN),
        (PROSE, [f"number {number}" for number in range(16)], PLAIN),
        # Few of the answers, or few answers.
        (LABELS, LABELS[:12] + FREE[12:], ASKED),
        (FREE, [""] * 4 + FREE[4:], PLAIN),
        (FREE[:4], [""] * 4, PLAIN),
        (FREE[:7], ["yes"] * 7, PLAIN),
        # As many gain it as lose it.
        (LABELS[:8] + FREE[8:], FREE[:8] + LABELS[8:], ASKED),
        # Letters, numbers and short answers have no script and no length.
        (["3"] * 4 + FREE[4:], FREE, PLAIN),
        (FREE, [str(number) for number in range(16)], PLAIN),
        (["yes", "not at all"] * 8, ["yes", "it is not known at all"] * 8, [f"{text}. Options: - yes - not at all - it is not known at all" for text in PLAIN]),
        ([f"{number}日本" for number in range(16)], [f"{number}ひらがな" for number in range(16)], PLAIN),
    ],
)  # fmt: skip
def test_nothing_is_lost_where_the_form_stays_or_gets_better(before, after, inputs):
    assert losses(before, after, inputs) == []


def test_answers_that_did_not_end_before_need_not_end_now():
    assert (
        losses(FREE, FREE, ended=(0, 0)) == losses(FREE, FREE, ended=(2, 0)) == losses(FREE, FREE, ended=(0, 16)) == []
    )
    assert losses(PROSE, LABELS, ended=(3, 16)) == []  # a length at which answers were cut is no form


def test_a_few_of_many_answers_are_no_reason():
    many = [f"it is number {number}" for number in range(400)]
    inputs = [f"input {number}" for number in range(400)]
    assert losses(many, [""] * 100 + many[100:], inputs, ended=(400, 400)) == []
    assert (
        losses(many, [""] * 101 + many[101:], inputs, ended=(400, 400))[0]
        == "400 of 400 answers had text; now 299 have."
    )


@given(st.data())
def test_neither_order_nor_chance_flips_decide(data):
    before = data.draw(st.lists(st.sampled_from([*LABELS[:3], *FREE[:2], "", "это"]), min_size=16, max_size=16))
    after = data.draw(st.lists(st.sampled_from([*LABELS[:3], *FREE[:2], "", "это"]), min_size=16, max_size=16))
    order = data.draw(st.permutations(range(16)))
    shuffled = [[texts[place] for place in order] for texts in (before, after, ASKED)]
    assert losses(*shuffled) == losses(before, after, ASKED)
    assert losses(before, before, ASKED) == []


def test_the_chance_is_that_of_a_sign_test():
    from scipy.stats import binomtest

    for lost, gained in ((5, 0), (4, 0), (0, 0), (7, 2), (3, 9)):
        expected = binomtest(lost, lost + gained, alternative="greater").pvalue if lost + gained else 1.0
        assert chance_of_loss(lost, gained) == pytest.approx(expected)


# ---- what is measured ------------------------------------------------------------------------------------------------------


def test_the_form_is_counted():
    answers = [
        Answer("fine", True),
        Answer("", True),
        Answer("fine", False),
        Answer("no " * 20, False),
        Answer("das", True),
    ]
    options = [frozenset({"fine", "dull"})] * 3 + [frozenset()] * 2
    form = AnswerForm.of(answers, options)
    assert form == AnswerForm(
        num_answers=5, most_frequent="fine", most_frequent_share=0.4, empty_share=0.2, unended_share=0.4, num_with_options=3,
        among_options_share=2 / 3, repetitive_share=0.2, median_characters=4.0, script="LATIN", script_share=1.0,
    )  # fmt: skip
    assert AnswerForm.of(answers[::-1], options[::-1]) == form


def test_the_most_frequent_of_two_answers_is_the_same_in_any_order():
    answers = [Answer("b", True), Answer("a", True)]
    assert AnswerForm.of(answers, [frozenset()] * 2).most_frequent == "a"
    assert AnswerForm.of(answers[::-1], [frozenset()] * 2).most_frequent == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the the the the the the the the the the", True),
        ("I do not know. I do not know. I do not know. I do not know.", True),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", True),
        ("我不知道我不知道我不知道我不知道我不知道", True),
        ("It was a fine day, and the man went to the shop and then to the park.", False),
        ("no no no", False),
        ("2000000", False),
        ("", False),
    ],
)
def test_repetitions_within_an_answer_are_seen(text, expected):
    assert is_repetitive(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", "LATIN"),
        ("Да, это GPT-2", "CYRILLIC"),
        ("東京タワー", "CJK"),
        ("\uff21\uff22", "LATIN"),
        ("42 %", ""),
        ("", ""),
    ],
)
def test_the_script_is_that_of_most_letters(text, expected):
    assert script_of(text) == expected


def test_choices_that_the_input_does_not_say_are_no_answers_that_are_too_short():
    before, after = ([Answer(text, True) for text in texts] for texts in (PROSE, LABELS))
    known = [named_options(text, ["fine", "dull", "odd"]) for text in PLAIN]
    assert lost_form(PLAIN, before, after, known) == []
    assert len(lost_form(PLAIN, before, after, [frozenset()] * 16)) == 1
