import pytest
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.adaptation.named_options import named_options
from recross_hf.soft_em import answer_key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is it spam?\nOptions: - spam - not spam", {"spam", "not spam"}),
        (
            "What is it about?\nOPTIONS:\n- World\n- Sports\n- Business\n\nText: a match",
            {"world", "sports", "business"},
        ),
        ("Choices: a cat, dog or cow.", {"cat", "dog", "cow"}),
        ("Categories: up | down", {"up", "down"}),
        ("Which? (A) red (B) dark green", {"a", "red", "b", "dark green", "b dark green"}),
        ("Which?\nA. red\nB. blue\nAnswer:", {"a", "red", "b", "blue", "b blue"}),
        ("1) up 2) down", {"1", "up", "1 up", "2", "down", "2 down"}),
        ('Answer "entailment", "neutral" or "contradiction".', {"entailment", "neutral", "contradiction"}),
        ("Pick 'x' / 'y'", {"x", "y"}),
        ("It rains. True, False, or Neither?", {"true", "false", "neither"}),
        ("Is the review good? It was long.", {"yes", "no"}),
        ("Text: it was long.\nDid they like it?", {"yes", "no"}),
    ],
)
def test_options_are_found_in_their_common_forms(text, expected):
    assert named_options(text) == expected


@pytest.mark.parametrize(
    ("text", "among", "outside"),
    [
        ("Is this ticket about billing, delivery or a bug? My parcel", {"billing", "delivery", "bug"}, {"parcel", "yes"}),
        ("Is the guest positive or negative about us?", {"positive", "negative"}, {"guest", "us", "yes"}),
        ("The driver lets him off, and the stop is church, office or circus.", {"church", "office", "circus"}, {"driver"}),
    ],
)  # fmt: skip
def test_alternatives_in_running_text_are_found(text, among, outside):
    found = named_options(text)
    assert among <= found
    assert not outside & found


@pytest.mark.parametrize(
    "text",
    [
        "Summarise: The man went home. He slept.",
        "What is the capital of France?",
        "A man, in May, saw B. He left.",
        "Translate to German: I like it",
        "Options: unknown",
        "",
    ],
)
def test_nothing_is_found_where_nothing_is_named(text):
    assert named_options(text) == frozenset()


def test_known_choices_are_options():
    assert named_options("Film number 3", ["Good", "bad "]) == {"good", "bad"}
    assert named_options("Is it good?", ["fine", "dull"]) == {"fine", "dull"}
    assert named_options("(A) red (B) blue", ["red", "blue"]) >= {"red", "blue", "a", "b"}


@given(st.text(max_size=300))
def test_any_text_has_no_option_or_two_or_more(text):
    found = named_options(text)
    assert len(found) != 1 and "" not in found
    assert all(answer_key(option) == option for option in found)
