"""Visitors: nobody is anybody else, and what belonged to one who left is gone."""

from recross_hf.web.limits import Limits
from recross_hf.web.visits import Visits


def test_a_visit_ends_with_its_files_and_their_copies(tmp_path):
    visits = Visits(Limits(), tmp_path)
    one, other = visits.of("one"), visits.of("other")
    assert one is not other
    assert visits.of("one") is one
    for visit in (one, other):
        (visit.folder / "file").write_text("")
    for place, name in (("a", "mine.zip"), ("b", "theirs.zip")):
        (tmp_path / place).mkdir()
        (tmp_path / place / name).write_text("")
    one.downloads.append("mine.zip")
    visits.end("one")
    visits.end("nobody")
    assert not one.folder.exists()
    assert other.folder.is_dir()
    assert [path.name for path in tmp_path.rglob("*.zip")] == ["theirs.zip"]
    assert visits.of("one") is not one
    visits.end_all()
    assert not other.folder.exists()
    assert not len(visits)


def test_files_that_are_written_to_go_when_that_is_over():
    visits = Visits(Limits())
    visit = visits.of("one")
    with visit.in_use(), visit.in_use():
        visits.end("one")
        assert visit.is_cancelled.is_set()
        (visit.folder / "file").write_text("")
    assert not visit.folder.exists()


def test_a_visitor_who_does_nothing_makes_no_folder_and_the_idle_are_forgotten():
    time = [0.0]
    visits = Visits(Limits(visits=2, idle_seconds=10), now=lambda: time[0])
    first = visits.of("first")
    assert "folder" not in vars(first)
    time[0] = 5
    second = visits.of("second")
    visits.of("first")
    visits.of("third")  # one too many: the second did nothing for longest
    assert second.is_cancelled.is_set()
    assert visits.of("first") is first
    time[0] = 16
    visits.of("third")
    assert len(visits) == 1
    assert first.is_cancelled.is_set()
