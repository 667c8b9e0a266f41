import json
import pickle
import random
import time
from collections import Counter

import pytest
import yaml
from jinja2 import Environment
from promptsource_outputs import RECORDED, Rows, digest

from recross_hf.mixture.sandbox import PromptError
from recross_hf.mixture.template_files import datasets_with_templates, load_templates, read_templates, select_templates
from recross_hf.mixture.templates import PromptTemplate

FOLLOWS = PromptTemplate(
    "follows",
    "{{premise}} Does it follow that {{hypothesis}}? ||| {{answer_choices[label]}}",
    answer_choices="yes ||| maybe ||| no",
)
ROW = {"premise": "It rains.", "hypothesis": "it is wet", "label": 0}


def template(jinja: str, **fields) -> PromptTemplate:
    return PromptTemplate("mine", jinja, **fields)


# Rows of long generated texts, compared word by word in loops: beyond what the sandbox lets a template use up.
TOO_LONG = {("great_code", "bug detection", 25), ("great_code", "identifier prediction with choices", 23)}


# ---- as the original -------------------------------------------------------------------------------------------------


def recorded_templates(promptsource, every: int) -> list[tuple]:
    """The templates of every n-th data set of PromptSource, their rows, and by seed the hashes of what the original makes of them."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert set(recorded) == set(datasets_with_templates(promptsource))
    templates = []
    for dataset, by_name in list(recorded.items())[::every]:
        found = load_templates(dataset, folder=promptsource)
        assert {template.name for template in found} == set(by_name)
        for template in found:
            digests = {int(seed): digest for seed, digest in by_name[template.name].items()}
            templates.append((template, Rows(template.jinja, template.answer_choices), digests))
    return templates


@pytest.fixture(scope="module")
def some(promptsource):
    return recorded_templates(promptsource, every=20)


@pytest.fixture(scope="module")
def recorded(promptsource):
    return recorded_templates(promptsource, every=1)


def rendered_as_the_original_does(recorded) -> tuple[int, int]:
    """How many rows were, and how many templates the original renders no row of."""
    num_rendered = num_refused = 0
    for found, rows, digests in recorded:
        for seed, expected in digests.items():
            if (found.dataset, found.name, seed) in TOO_LONG:
                with pytest.raises(PromptError, match="more than 1,000,000 steps"):
                    found.apply(rows.row(seed), rng=random.Random(seed))
                continue
            parts = found.apply(rows.row(seed), rng=random.Random(seed))
            assert digest(parts) == expected, (found.dataset, found.name, seed, parts)
            num_rendered += 1
        if not digests:
            with pytest.raises(PromptError):
                found.apply(rows.row(0))
            num_refused += 1
    return num_rendered, num_refused


def test_templates_of_promptsource_render_as_the_original_does(some):
    num_rendered, _ = rendered_as_the_original_does(some)
    assert num_rendered > 200


@pytest.mark.slow
def test_every_template_of_promptsource_renders_as_the_original_does(recorded):
    num_rendered, num_refused = rendered_as_the_original_does(recorded)
    assert num_rendered > 6000
    assert num_refused < 40  # the original renders none of the rows that were tried


def names_the_columns_that_it_needs(recorded) -> Counter:
    """How many templates do, by what they make of their rows."""
    counts = Counter()
    for found, rows, digests in recorded:
        assert found.columns <= set(rows.names)
        full = rows.row(0)
        for column in found.columns:
            with pytest.raises(PromptError, match=f"expected the column '{column}'"):
                found.example({name: value for name, value in full.items() if name != column})
        outcomes = set()
        for seed in digests:
            if (found.dataset, found.name, seed) in TOO_LONG:
                continue
            row = rows.row(seed)
            needed = {name: value for name, value in row.items() if name in found.columns}
            parts = found.apply(row, rng=random.Random(seed))
            # Nothing that it needs is left out: the other names are those that it sets itself.
            assert found.apply(needed, rng=random.Random(seed)) == parts, (found.dataset, found.name, seed)
            if all(parts) and len(parts) != 2:
                outcomes.add("several answers")
                with pytest.raises(PromptError, match=f"found {len(parts)} parts"):
                    found.example(needed, rng=random.Random(seed))
                continue
            example = found.example(needed, rng=random.Random(seed))
            assert (example is None) == (not all(parts)), (found.dataset, found.name, seed)
            outcomes.add("nothing" if example is None else "an example")
        counts[
            next((name for name in ("an example", "several answers", "nothing") if name in outcomes), "no row")
        ] += 1
    return counts


def test_templates_of_promptsource_name_the_columns_that_they_need(some):
    counts = names_the_columns_that_it_needs(some)
    assert counts["an example"] > 50
    assert counts["several answers"] + counts["nothing"] > 0


@pytest.mark.slow
def test_every_template_of_promptsource_names_the_columns_that_it_needs(recorded):
    counts = names_the_columns_that_it_needs(recorded)
    # The last two ask for rows of a shape that no generated row has.
    assert counts == {"an example": 1859, "several answers": 17, "nothing": 173, "no row": 36}


def test_templates_of_promptsource_are_found_and_selected(promptsource):
    found = load_templates("super_glue/cb")
    assert [item.name for item in found] == sorted(item.name for item in found)
    assert {item.dataset for item in found} == {"super_glue/cb"}
    justified = next(item for item in found if item.name == "justified in saying")
    assert justified.metrics == ("Accuracy",)
    assert justified.fixed_choices == ["Yes", "No", "Maybe"]
    row = {"premise": "It rains.", "hypothesis": "It is wet.", "label": 2}
    assert justified.example(row) == {
        "input": 'It rains. Are we justified in saying that "It is wet."? Yes, no, or maybe?',
        "references": ["Maybe"],
        "choices": ["Yes", "No", "Maybe"],
    }


# ---- rendering -------------------------------------------------------------------------------------------------------


def test_a_row_becomes_an_example():
    assert FOLLOWS.columns == {"premise", "hypothesis", "label"}
    assert FOLLOWS.example(ROW | {"more": 1}) == {
        "input": "It rains. Does it follow that it is wet?",
        "references": ["yes"],
        "choices": ["yes", "maybe", "no"],
    }
    assert template("{{q}} ||| {{a}}").example({"q": "one", "a": "two"})["choices"] == []


def test_separators_in_the_data_stay_in_the_data():
    assert FOLLOWS.example(ROW | {"premise": "a|||b"})["input"].startswith("a|||b Does")
    choices = template("{{q}} ||| {{q}}", answer_choices="{{q}} ||| no")
    assert choices.example({"q": "x ||| y"})["choices"] == ["x ||| y", "no"]


def test_long_values_are_cut_unless_told_otherwise():
    long = template("{{q}} ||| a")
    assert len(long.apply({"q": "word " * 1000})[0]) <= 2048
    assert len(long.apply({"q": "word " * 1000}, truncate=False)[0]) == 4999


@pytest.mark.parametrize("jinja", ["{% if q == 'x' %}{{q}} ||| a{% endif %}", "{{q}} ||| ", " ||| {{q}}"])
def test_a_row_that_does_not_suit_gives_no_example(jinja):
    assert template(jinja).example({"q": "y"}) is None


def test_chance_comes_from_the_generator_alone():
    draws = template("{{ ['a', 'b', 'c', 'd'] | choice }}{{ range(50) | random }} ||| z")
    assert draws.apply({}) == draws.apply({})
    seen = {draws.apply({}, rng=random.Random(seed))[0] for seed in range(30)}
    assert len(seen) > 10
    assert draws.apply({}, rng=random.Random(3)) == draws.apply({}, rng=random.Random(3))


def test_a_row_is_not_changed():
    row = {"q": ["a"]}
    assert template("{{ q.append('b') }}{{ q | join('-') }} ||| z").apply(row)[0] == "Nonea-b"
    assert row == {"q": ["a"]}
    template("{{ q . append('c') }} ||| z").apply(row)
    assert row == {"q": ["a"]}


def test_names_that_may_be_missing_are_no_columns():
    optional = template(
        "{% if label == 0 %}{% set y = 'no' %}{% else %}{% set y = 'yes' %}{% endif %}"
        "{% if more is defined %}{{more}}{% endif %}{{other | default('')}}{{label}} ||| {{y}}"
    )
    assert optional.columns == {"label"}
    assert optional.example({"label": 0})["references"] == ["no"]
    assert template("{{ [] | random }}{{q}} ||| a").example({"q": "b"})["input"] == "b"


@pytest.mark.parametrize(
    ("jinja", "columns"),
    [
        ("{% set text = text | upper %}{{text}}", {"text"}),
        ("{% for item in item %}{{item}}{% endfor %}", {"item"}),
        ("{% for item in items %}{{item}}{{loop.index}}{% endfor %}{{item}}", {"items", "item"}),
        ("{% for item in items %}{% set last = item %}{% endfor %}{{last}}", {"items", "last"}),
        ("{% for item in items if item != other %}{{item}}{% endfor %}", {"items", "other"}),
        ("{% for a, b in zip(first, second) %}{{a}}{% else %}{{c}}{% endfor %}", {"first", "second", "c"}),
        ("{% if a %}{% set x = 1 %}{% elif b %}{% set x = 2 %}{% endif %}{{x}}", {"a", "b"}),
        ("{% if a %}{% set x = 1 %}{% else %}{{x}}{% endif %}", {"a", "x"}),
        ("{% set ns = namespace(a=b) %}{% set ns.a = c %}{{ns.a}}{{ns['d']}}", {"b", "c"}),
        ("{% set x %}{{a}}{% set y = b %}{{y}}{% endset %}{{x}}{{y}}", {"a", "b", "y"}),
        ("{% with a = a, b = 1 %}{{a}}{{b}}{% set c = 1 %}{% endwith %}{{b}}{{c}}", {"a", "b", "c"}),
        ("{{answer_choices[label]}}", {"label"}),
    ],
)
def test_columns_are_the_names_that_are_read_before_they_are_set(jinja, columns):
    assert template(jinja).columns == columns


def test_fixed_choices_are_those_that_name_no_column():
    assert FOLLOWS.fixed_choices == ["yes", "maybe", "no"]
    assert template("{{q}} ||| a").fixed_choices is None
    assert template("{{q}} ||| a", answer_choices="{{q}} ||| b").fixed_choices is None
    counted = "{% for i in range(3) %}{{i}}{{ ' ||| ' if not loop.last }}{% endfor %}"
    assert template("{{q}} ||| a", answer_choices=counted).fixed_choices == ["0", "1", "2"]


def test_a_template_can_be_sent_to_another_process():
    FOLLOWS.example(ROW)
    again = pickle.loads(pickle.dumps(FOLLOWS))
    assert again == FOLLOWS
    assert again.example(ROW) == FOLLOWS.example(ROW)


@pytest.mark.parametrize(
    ("jinja", "row", "match"),
    [
        ("{{p}} ||| {{q}}", {"q": 1, "r": 2}, "template 'mine': expected the column 'p', found q, r"),
        ("{{q}}", {"q": "text"}, r"separated by one '\|\|\|', found 1 parts"),
        ("{{q}} ||| a ||| b", {"q": "text"}, r"separated by one '\|\|\|', found 3 parts"),
        ("{{q}\n} ||| a", {"q": "text"}, "template 'mine': line 1: "),
        ("{% if q %} ||| a", {"q": "text"}, "template 'mine': line 1: "),
        ("{{q.split()[9] + 1}} ||| a", {"q": "text"}, "template 'mine': UndefinedError"),
        ("{{(1 / q)}} ||| a", {"q": 0}, "template 'mine': ZeroDivisionError"),
        ("{{q}} ||| a", {"q": 0, "answer_choices": ["b"]}, "expected no column 'answer_choices'"),
    ],
)
def test_what_cannot_be_rendered_is_named(jinja, row, match):
    with pytest.raises(PromptError, match=match):
        template(jinja).example(row)
    with pytest.raises(PromptError, match=r"template 'mine' of tickets"):
        PromptTemplate("mine", jinja, dataset="tickets").example(row)


@pytest.mark.parametrize(
    "jinja",
    [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10000000 }}",
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=['a']) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
        "{% set x = [] %}{% for i in range(60) %}{{ x.append(x[:]) }}{% endfor %}{{ x }}",
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s | replace('a', 'aa') %}{% endfor %}",
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('a', 'aa') %}{% endfor %}",
        "{{ ('a' * 900000).join(range(1000) | map('string')) }}",
        "{{ range(1000) | join('a' * 900000) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ '%999999999d' % 1 }}",
        "{% set ns = namespace(s=9) %}{% for i in range(100) %}{% set ns.s = ns.s * ns.s %}{% endfor %}",
        "{{ range(1000000000) | list }}",
        "{% for i in range(90000) %}{% set x = range(90000) | list %}{% endfor %}",
        "{% for i in range(90000) %}{% set x = ('a ' * 90000).split() %}{% endfor %}",
        "{% set x = 'a' * 900000 %}{% for i in range(90000) %}{% set y = x.count('b') %}{% endfor %}",
        "{% for i in range(90000) %}{{ 'a' * 1000 }}{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ q.__init__.__globals__ }}",
        "{{ '{0.__class__}'.format(q) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'a'.center(99999999999) }}",
        "{{ cycler('a') }}",
        "{{ q() }}",
        "{{ q | pprint }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% for i in q recursive %}{{ loop(q) }}{% endfor %}",
        "{% set range = d.clear %}{{ range() }}",
        "{% set range = 'a'.center %}{{ range(3000000000) | length }}",
        "{% set range = lipsum %}{{ range(1) }}",
        "{{ ['a'] | map('center', 3000000000) | first | length }}",
        "{% set ns = namespace(z=[1]) %}{% for j in range(5) %}{% for i in range(90000) %}{% set ns.z = zip(ns.z) %}"
        "{% endfor %}{% endfor %}{% for x in ns.z %}x{% endfor %}",
        "{{ '%(a)3000000000d' | format(a=1) }}",
        "{{ 5 | round(-99999999) }}",
        "{% set x = [0] * 90000 %}{% for i in range(9000) %}{% set y = x | string %}{% endfor %}",
        "{% set r = namespace(s='a') %}{% for i in range(60) %}{% set r.s = namespace(a=r.s, b=r.s) %}{% endfor %}{{ r.s }}",
        "{% set r = namespace(s={'a': 1}) %}{% for i in range(60) %}{% set r.s = dict(a=r.s.items(), b=r.s.items()) %}"
        "{% endfor %}{{ r.s }}",
        "{% set x = 'a' * 500000 %}{% for i in range(90000) %}{% set y = x[1:] %}{% endfor %}",
        "{% set x = 'a' * 500000 %}{% for i in range(90000) %}{% set y = x ~ 'b' %}{% endfor %}",
        "{% set x = 'a' * 500000 %}{% for i in range(90000) %}{% set y = x | title %}{% endfor %}",
        "{% set x = 'a ' * 250000 %}{% for i in range(90000) %}{% set y = x | wordcount %}{% endfor %}",
        "{% set x = 'a ' * 250000 %}{% for i in range(90000) %}{% set y = [x] | map('title') | list %}{% endfor %}",
        "{% set x = 'a ' * 250000 %}{% for i in range(90000) %}{% set y = x | unique | list %}{% endfor %}",
        "{% set x = 'a ' * 250000 %}{% for i in range(90000) %}{% set y = x | select('eq', 'b') | list %}{% endfor %}",
        "{% set x = 'a ' * 250000 %}{% for i in range(90000) %}{% set y = x | max %}{% endfor %}",
        "{% set x %}{% for i in range(90000) %}{{ 'a' * 1000 }}{% endfor %}{% endset %}",
        "{% set x %}{% for i in range(90000) %}twenty letters in all{% endfor %}{% endset %}",
        "{% set b = 'a' * 1000 %}{% for i in range(90000) %}{% set x %}{{ b }}{% endset %}{% endfor %}",
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s %}{{ns.s}}{{ns.s}}{% endset %}{% endfor %}",
        "{% set x | replace('a', 'a' * 9000) %}{{ 'a' * 9000 }}{% endset %}",
        "{% set x %}{{ q.__class__ }}{{ q.center(9) }}{% endset %}{{ x }}",
        "{% with x = 'a' * 10000000 %}{% endwith %}",
        "{% with %}{{ q() }}{% endwith %}",
        "{% with range = d.clear %}{{ range() }}{% endwith %}",
        "{% for i in range(9) %}{{ loop.cycle('a' * 600000, 'b' * 600000) }}{% endfor %}",
        "{{ q.cycle(1) }}",
        "{% for i in range(2) %}{{ loop.cycle.__func__.__globals__ }}{% endfor %}",
        "{% for i in range(2) %}{{ loop.__call__(q) }}{% endfor %}",
        "{{ '%((a)b)999999999d' % {'(a)b': 1} }}",
        "{{ '%((a)b)999999999d' | format(**{'(a)b': 1}) }}",
        "{{ '%(' * 450000 % {} }}",
        "{{ ('%(a)999d' * 90000) % {'a': 1} }}",
        "{{ ('%(a)s' * 2000) % {'a': 'b' * 1000} }}",
        "{{ '%s%s%s' % ('b' * 600000, 'b' * 600000, 'b') }}",
        "{{ '%.*f' % (999999999, 1.5) }}",
        "{{ [['a'], ['b']] | sum(start=[]) }}",
        "{{ ([" + "9" * 30 + "] * 1000) | sum }}",
        "{% set x = [1] * 90000 %}{% for i in range(90000) %}{% set y = x | sum %}{% endfor %}",
        "{{ [1] | batch(1000000000, 'x') | list | length }}",
        "{{ 'a' | indent(1000000000, first=true) }}",
        "{{ ('a\n' * 9000) | indent('b' * 9000) }}",
        "{{ [['a']] | tojson(indent=1000000000) }}",
        "{{ range | tojson }}",
        "{% set x = [1] * 90000 %}{% for i in range(9000) %}{% set y = x | tojson %}{% endfor %}",
        "{{ 1 is in(q) }}",
        "{% set d = dict(a=1) %}{% for k in d %}{{ d.update(b=2) }}{% endfor %}",
        "{{ " + "[" * 300 + "1" + "]" * 300 + " }}",
        "{{ " + "+".join(["q"] * 3000) + " }}",
        "{% for i in q %}" * 25 + "{% endfor %}" * 25,
        "{{ " + "9" * 5000 + " }}",
    ],
)
def test_a_hostile_template_gets_an_error(jinja):
    start = time.process_time()
    for hostile in (template(jinja + " ||| a"), template("{{q}} ||| a", answer_choices=jinja)):
        with pytest.raises(PromptError, match="template 'mine'"):
            hostile.apply({"q": "text", "d": {"k": 1}}, truncate=False)
    assert time.process_time() - start < 20  # each would take minutes, or all memory


@pytest.mark.parametrize(
    ("jinja", "expected"),
    [
        ("{% set x %}{{q}}, {{ items | join('-') }}{{ none }}{% endset %}[{{x}}]", "[two words, a-b-cNone]"),
        ("{% set x %}{% for i in items %}{{i}};{% endfor %}{% endset %}{{x | upper}}", "A;B;C;"),
        ("{% set x | upper %}{{q}}{% endset %}{{x}}", "TWO WORDS"),
        ("{% set ns = namespace(x='') %}{% set ns.x %}{{q}}!{% endset %}{{ns.x}}", "two words!"),
        ("{% with a = q, b = 2 %}{{a}}{{b}}{% endwith %}{{b}}", "two words2"),
        ("{% for i in items %}{{ loop.cycle('x', 'y') }}{{i}}{% endfor %}", "xaybxc"),
        ("{{ '%s is %03d or %.1f%%' % (q, 7, 2.5) }}", "two words is 007 or 2.5%"),
        ("{{ '%s' % q }} {{ '%(a)s %(b)s' % {'a': 1, 'b': items} }}", "two words 1 ['a', 'b', 'c']"),
        ("{{ [1, 2, 0.5] | sum }} {{ rows | sum(attribute='n') }} {{ [] | sum(start=3) }}", "3.5 3 3"),
        ("{% for pair in items | batch(2, '?') %}{{ pair | join }};{% endfor %}", "ab;c?;"),
        ("{{ 'a\nb' | indent(2) }}|{{ 'a\nb' | indent('> ', first=true) }}", "a\n  b|> a\n> b"),
        ("{{ {'b': items, 'a': q} | tojson }}", '{"a": "two words", "b": ["a", "b", "c"]}'),
        ("{{ q | title }} {{ q | wordcount }}", "Two Words 2"),
    ],
)
def test_what_text_needs_is_allowed_and_as_jinja_has_it(jinja, expected):
    row = {"q": "two words", "items": ["a", "b", "c"], "rows": [{"n": 1}, {"n": 2}]}
    assert template(jinja + " ||| z").apply(row, truncate=False) == [expected, "z"]
    assert Environment(autoescape=False).from_string(jinja).render(**row) == expected


# ---- files -----------------------------------------------------------------------------------------------------------

TICKETS = """
dataset: tickets
templates:
  one: !Template
    name: urgent or not
    jinja: "{{text}} Is it urgent? ||| {{answer_choices[label]}}"
    answer_choices: no ||| yes
    metadata: !TemplateMetadata
      original_task: true
      choices_in_prompt: false
      metrics: [Accuracy]
  two:
    name: a title
    jinja: "{{text}} ||| {{title}}"
    metadata: {metrics: [ROUGE], original_task: false}
"""


@pytest.fixture
def tickets(tmp_path):
    (tmp_path / "tickets").mkdir()
    (tmp_path / "tickets" / "templates.yaml").write_text(TICKETS)
    return tmp_path


def test_a_folder_of_ones_own_is_read(tickets):
    title, urgent = load_templates("tickets", folder=tickets)
    assert (title.name, title.answer_choices, title.original_task, title.metrics) == (
        "a title",
        None,
        False,
        ("ROUGE",),
    )
    assert (urgent.original_task, urgent.choices_in_prompt, urgent.dataset) == (True, False, "tickets")
    assert urgent.example({"text": "Fire!", "label": 1})["references"] == ["yes"]
    assert datasets_with_templates(tickets) == ["tickets"]


def test_templates_are_selected_by_what_can_be_judged(tickets):
    templates = load_templates("tickets", folder=tickets)

    def names(**how):
        return [found.name for found in select_templates(templates, **how)]

    assert names() == ["urgent or not"]
    assert names(metrics=None) == ["a title", "urgent or not"]
    assert names(metrics={"ROUGE"}) == ["a title"]
    assert names(metrics=None, original_task=True) == ["urgent or not"]
    assert names(metrics=None, original_task=False) == ["a title"]
    assert names(metrics=None, has_choices=True) == ["urgent or not"]
    assert names(metrics=None, has_choices=False) == ["a title"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("templates: [", "Expected templates as YAML in .*templates.yaml: while parsing"),
        ("templates:\n  a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("- a", "Expected a mapping with `templates` in .*, found list"),
        ("dataset: a", "Expected a mapping with `templates` in .*, found dict"),
        ("templates: {a: text}", "Expected each template in .* to be a mapping, found str"),
        ("templates: {a: {name: b}}", "Expected `jinja` of each template in .*, found name"),
        ("templates: {a: {name: b, jinja: [c]}}", "Expected `jinja` of a template in .* to be str, found list"),
        (
            "templates: {a: {name: b, jinja: c, metadata: d}}",
            "Expected `metadata` of a template .* to be dict, found str",
        ),
    ],
)
def test_what_is_no_file_of_templates_is_refused(text, match, tmp_path):
    path = tmp_path / "templates.yaml"
    path.write_text(text)
    with pytest.raises(PromptError, match=match):
        read_templates(path)


def test_data_sets_without_templates_are_named(tickets, monkeypatch):
    (tickets / "glue" / "sst2").mkdir(parents=True)
    (tickets / "glue" / "sst2" / "templates.yaml").write_text(yaml.dump({"templates": {}}))
    with pytest.raises(FileNotFoundError, match=r"for 'glue/cola' in .* found none\. There are some for glue/sst2\."):
        load_templates("glue/cola", folder=tickets)
    with pytest.raises(ValueError, match=r"found '\.\./tickets'"):
        load_templates("../tickets", folder=tickets / "glue")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"pip install --no-deps --ignore-requires-python promptsource==0\.2\.3"
    ):
        load_templates("tickets")


def test_a_template_is_checked_before_it_is_used():
    FOLLOWS.check()
    for jinja in ("{{q}}", "{{q}} ||| a ||| b", "{{q ||| a", "{{ q | pprint }} ||| a"):
        with pytest.raises(PromptError, match="template 'mine'"):
            template(jinja).check()
