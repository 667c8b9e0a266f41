import pytest

from recross_hf.core.run_settings import changed_settings, names_alone, refuse_other_settings


def test_settings_that_differ_are_said_with_both_values():
    written = {"seed": 1, "lengths": [1, 2], "same": {"a": 1}, "nested": {"a": 1, "b": {"c": 2}}, "gone": "x"}
    asked = {"seed": 2, "lengths": (1, 2), "same": {"a": 1}, "nested": {"a": 1, "b": {"c": 3}}, "new": True}
    assert [str(setting) for setting in changed_settings(written, asked)] == [
        "`gone` None in place of x",
        "`nested.b.c` 3 in place of 2",
        "`new` True in place of None",
        "`seed` 2 in place of 1",
    ]
    assert changed_settings(written, written) == []


def test_named_settings_alone_are_compared_in_their_order():
    written, asked = {"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 2}
    changed = changed_settings(written, asked, names=["c", "a", "nowhere"])
    assert list(map(str, changed)) == [
        "`c` 2 in place of 1",
        "`a` 2 in place of 1",
    ]


def test_a_long_value_is_shortened():
    (changed,) = changed_settings({"a": "x" * 200}, {"a": 1})
    assert str(changed) == f"`a` 1 in place of {'x' * 77}..."


def test_other_settings_are_refused_with_what_was_expected_found_and_can_be_done():
    class OtherRunError(ValueError):
        pass

    words = {"expected": "the settings of out", "remedy": "Choose another folder."}
    refuse_other_settings({"a": 1, "b": 1}, {"a": 1, "b": 2}, names=["a"], **words)
    with pytest.raises(
        OtherRunError, match=r"^Expected the settings of out, found `b` 2 in place of 1\. Choose another folder\.$"
    ):
        refuse_other_settings({"a": 1, "b": 1}, {"a": 1, "b": 2}, error=OtherRunError, **words)


def test_names_alone_are_those_of_the_settings_that_hold_what_differs():
    written, asked = {"nested": {"a": 1, "b": {"c": 2}}, "seed": 1}, {"nested": {"a": 2, "b": {"c": 3}}, "seed": 2}
    with pytest.raises(ValueError, match=r"^Expected this, found another nested, seed\. Do that\.$"):
        refuse_other_settings(
            written,
            asked,
            expected="this",
            found=lambda changed: f"another {names_alone(changed)}",
            remedy="Do that.",
        )
