"""Without the extra `[cluster]`, the rest works, and what needs Lance says what to install."""

import sys

import pytest
from lance_cases import TextEncoder, rows

import recross_hf
from recross_hf import LanceIndex


@pytest.fixture
def without_lance(monkeypatch):
    for name in [name for name in sys.modules if name == "lance" or name.startswith("lance.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lance", None)


def test_building_and_opening_say_what_to_install(without_lance, tmp_path):
    for use in (
        lambda: LanceIndex.build(rows(5), TextEncoder(), tmp_path / "index.lance"),
        lambda: LanceIndex.from_pretrained(tmp_path / "index.lance", encoder=TextEncoder()),
    ):
        with pytest.raises(ImportError, match=r"needs pylance: pip install 'recross_hf\[cluster\]'"):
            use()


def test_the_names_are_public_without_it(without_lance):
    assert recross_hf.LanceRetriever.__name__ == "LanceRetriever" and {"LanceIndex", "LanceRetriever"} <= {
        *dir(recross_hf)
    }
