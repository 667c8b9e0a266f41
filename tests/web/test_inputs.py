"""What a visitor gives: pasted, dropped or the starter's; what is wrong with it is said without the server's paths."""

import json

import pytest

from recross_hf.data.schema import ExampleError
from recross_hf.web.inputs import given_as_file, given_as_text, given_by_starter
from recross_hf.web.limits import Limits

LIMITS = Limits(inputs=4, characters=40, file_bytes=400, scored=7)


def test_pasted_lines_are_inputs_and_their_answers_labels():
    given = given_as_text("  Is it red? \r\n\nIs it\u2028blue?\n", "", LIMITS)
    assert given.texts == ["Is it red?", "Is it\u2028blue?"]
    assert given.labelled is None
    given = given_as_text("Is it red?\nIs it blue?", "yes\nno\n", LIMITS)
    assert given.labelled["references"][:] == [["yes"], ["no"]]
    assert given.are_inputs_labelled


@pytest.mark.parametrize(
    ("text", "labels", "said"),
    [
        ("", "", "Expected at least one input, found none"),
        (" \n \r\n", "", "Expected at least one input, found none"),
        ("a\nb\nc\nd\ne", "", "Expected at most 4 inputs, found 5"),
        ("a\n" + "b" * 41, "", "at most 40 characters, found 41 in input 2"),
        ("a" * 401, "", "at most 400 bytes of inputs, found 401"),
        ("a\nb", "yes", "a right answer for each of the 2 inputs, one a line, found 1"),
        ("a\0b", "", "found a zero byte"),
        ("a\ud800", "", "half of a surrogate pair"),
    ],
)
def test_what_is_wrong_with_pasted_inputs_is_said(text, labels, said):
    with pytest.raises(ExampleError, match=said):
        given_as_text(text, labels, LIMITS)


def test_one_word_and_html_are_inputs_like_any_other():
    assert given_as_text("word", "", LIMITS).texts == ["word"]
    assert given_as_text("<script>alert(1)</script>", "", LIMITS).texts == ["<script>alert(1)</script>"]


def test_files_of_each_kind_are_read(tmp_path):
    path = tmp_path / "lines.TXT"
    path.write_text("one\n\ntwo\n")
    assert given_as_file(path, LIMITS).texts == ["one", "two"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"input": text, "references": ["x", "y"]}) + "\n" for text in ("a\nb", "c")))
    given = given_as_file(path, LIMITS)
    assert given.texts == ["a\nb", "c"]
    assert given.labelled["references"][:] == [["x", "y"]] * 2
    assert "references" not in given.inputs.column_names
    path = tmp_path / "rows.csv"
    path.write_text('input,references\n"a, b",x\nc,y\n')
    assert given_as_file(path, LIMITS).labelled["references"][:] == [["x"], ["y"]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("picture.txt", b"\x89PNG\r\n\x1a\n" + bytes(20), "found a document or a picture"),
        ("program.txt", b"\x7fELF\x02\x01\x01\xff\xfe\xba", "Expected UTF-8 in program.txt"),
        ("page.txt", b"<!doctype html><p>Hello</p>", "found a page of HTML"),
        ("empty.txt", b"\n\n", "at least one example, found none"),
        ("large.txt", b"a" * 401, "at most 400 bytes, found 401"),
        ("rows.parquet", b"PAR1", r"ends in \.txt, \.csv, \.jsonl, \.json, found rows\.parquet"),
        ("rows.csv", b"question\nIs it?\n", "input"),
        ("rows.jsonl", b'{"input": \n', "Expected a JSON record in line 1 of rows.jsonl"),
        ("many.txt", b"a\nb\nc\nd\ne\n", "at most 4 inputs, found 5"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_its_folder_is_not(name, content, said, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ExampleError, match=said) as raised:
        given_as_file(path, LIMITS)
    assert str(tmp_path) not in str(raised.value)


def test_a_task_of_the_starter_has_examples_that_were_not_seen():
    given = given_by_starter("bus_stop", LIMITS)
    assert (len(given.texts), len(given.labelled), given.are_inputs_labelled) == (16, 7, False)
    assert not set(given.texts) & set(given.labelled["input"][:])
    with pytest.raises(ValueError, match="Expected a task of the starter"):
        given_by_starter("nothing", LIMITS)


def test_limits_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1, found less for inputs, steps"):
        Limits(inputs=0, steps=-1)
