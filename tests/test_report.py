"""README's table comes from stored evaluations, and nothing else of README changes."""

import json

import pytest

from training import report


@pytest.fixture
def readme(tmp_path, monkeypatch):
    """A README of its own, over the stored evaluations."""
    monkeypatch.setattr(report, "ROOT", tmp_path)
    return tmp_path / "README.md"


def test_only_what_stands_between_the_marks_is_replaced(readme):
    readme.write_text(f"before\n{report.MARKS[0]}\nold\n{report.MARKS[1]}\nafter\n")
    assert report.main([]) == 0
    assert readme.read_text() == f"before\n{report.MARKS[0]}\n{report.text()}\n{report.MARKS[1]}\nafter\n"


@pytest.mark.parametrize("lost", report.MARKS)
def test_a_readme_without_a_mark_stays_as_it_is(readme, lost, capsys):
    text = f"before\n{report.MARKS[0]}\nold\n{report.MARKS[1]}\nafter\n".replace(lost, "")
    readme.write_text(text)
    assert report.main([]) == 2 and readme.read_text() == text
    assert lost in capsys.readouterr().err


def test_an_evaluation_without_a_deception_rate_or_a_painter_is_not_stored(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "STORE", tmp_path)
    file = tmp_path / "of a style.txt"
    for deception, painter in ((None, ["--painter", "Van Gogh"]), ({"rate": 1}, [])):
        file.write_text(json.dumps({"generator": None, "deception": deception}))
        assert report.main(["--store", "mine", str(file), *painter]) == 2
        assert "--painter" in capsys.readouterr().err and not list(tmp_path.glob("*.json"))
