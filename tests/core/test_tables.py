import csv

import pytest

from recross_hf.core.cards import settings_rows
from recross_hf.core.tables import Change, Table, escape_markdown, format_table, shortened

TABLE = Table(
    "main",
    ["task", "recross |Q|=1", "p"],
    [["a_b & c%", 41.256, "< 0.001"], ["$x$ <script>", None, "-"], ["=cmd()", Change(1.5), "{~^\\}"]],
    caption="50% of *all*",
    notes=["one_two"],
    bold=frozenset({(0, 1)}),
)


def test_markdown_is_a_table_whatever_the_names():
    assert TABLE.to_markdown().split("\n") == [
        "50% of \\*all\\*",
        "",
        "| task | recross \\|Q\\|=1 | p |",
        "| --- | ---: | --- |",
        r"| a_b & c% | **41.26** | \< 0.001 |",
        r"| \$x\$ \<script\> | - | - |",
        "| =cmd() | +1.50 | {\\~^\\\\} |",
        "",
        "- one_two",
        "",
    ]


def test_latex_has_no_character_that_is_a_command():
    lines = TABLE.to_latex().split("\n")
    assert lines[2] == r"\caption{50\% of *all*}"
    assert lines[3] == r"\begin{tabular}{lrl}"
    assert lines[5] == r"task & recross \textbar{}Q\textbar{}=1 & p \\"
    assert lines[7:10] == [
        r"a\_b \& c\% & \textbf{41.26} & \textless{} 0.001 \\",
        r"\$x\$ \textless{}script\textgreater{} & - & - \\",
        r"=cmd() & +1.50 & \{\textasciitilde{}\textasciicircum{}\textbackslash{}\} \\",
    ]
    assert lines[10] == r"\bottomrule"


def test_csv_is_read_back_and_holds_no_formula():
    header, *rows = csv.reader(TABLE.to_csv().splitlines())
    assert header == ["task", "recross |Q|=1", "p"]
    assert rows == [
        ["a_b & c%", "41.2560", "< 0.001"],
        ["$x$ <script>", "", "'-"],
        ["'=cmd()", "1.5000", "{~^\\}"],
    ]


@pytest.mark.parametrize("text", ["two\nlines", "two\r\n lines", "two \t lines"])
def test_a_cell_stays_on_its_line(text):
    table = Table("t", [text], [[text]])
    assert table.to_markdown().splitlines() == ["| two lines |", "| --- |", "| two lines |"]
    assert sum("two lines" in line for line in table.to_latex().splitlines()) == 2


def test_columns_with_text_stand_to_the_left():
    assert Table("t", ["a", "b", "c"], [["x", 1, None], [None, 2.0, None]]).is_text() == [True, False, False]


def test_an_underscore_within_a_word_stays_and_one_at_its_edge_is_no_emphasis():
    assert "| dense_by_task |" in Table("t", ["dense_by_task"], []).to_markdown()
    assert r"| \_x\_ |" in Table("t", ["_x_"], []).to_markdown()


def test_an_entity_of_others_stays_text():
    assert escape_markdown("&lt;b&gt; & &#60;") == r"&amp;lt;b&amp;gt; & &\#60;"


def test_plain_text_has_numbers_to_the_right_and_a_line_a_row():
    table = Table("t", ["task", "score"], [["a\nb", 41.256], ["mean of tasks", None], ["c", Change(2)]])
    assert table.to_text().split("\n") == [
        "task           score",
        "--------------------",
        "a b            41.26",
        "mean of tasks      -",
        "c              +2.00",
    ]
    assert format_table(table.header, table.rows) == table.to_text()
    assert format_table(["task", "score"], []) == "task  score\n-----------"


def test_settings_are_short_enough_to_read():
    assert shortened("0f" * 32, 200) == "0f0f0f0f0f0f..."
    assert shortened(["0f" * 32, "b"], 200) == "0f0f0f0f0f0f..., b" and shortened([], 200) == "none"
    assert shortened("x" * 30, 24) == "x" * 24 + "..." and shortened(1e-6, 24) == "1e-06"
    assert settings_rows({"weights": "0f" * 32, "tasks": ["a", "b|c"]}) == (
        "| `weights` | 0f0f0f0f0f0f... |\n| `tasks` | a, b\\|c |"
    )
