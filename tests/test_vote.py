"""training/vote.py and its core, training/metrics/poll.py: groups without names, votes kept, shares counted."""

import csv
import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from assertions import refusal
from PIL import Image

from training.metrics.poll import Group, Poll, Vote, draw, find_groups, read_votes, record, tally
from training.vote import as_html, main, sheet

COLOURS = {"photo": (255, 255, 0), "ours": (255, 0, 0), "theirs": (0, 255, 0), "neither": (0, 0, 255)}
METHODS = ("ours", "theirs", "neither")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A folder of one colour for the photos and for each method; b/two is missing in "neither"."""
    for folder, colour in COLOURS.items():
        for name in ("one", "b/two", "three"):
            file = tmp_path / folder / f"{name}.{'png' if folder == 'ours' else 'jpg'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            if (folder, name) != ("neither", "b/two"):
                Image.new("RGB", (60, 40), colour).save(file)
    return tmp_path


def many(count: int) -> list[Group]:
    return [Group(f"{n:02d}", None, {name: Path(name) for name in METHODS}) for n in range(count)]


def test_a_group_is_a_photo_that_every_folder_has_suffixes_aside(folders):
    groups = find_groups([folders / name for name in METHODS], photos=folders / "photo")
    assert [group.name for group in groups] == ["one", "three"]
    assert groups[0].photo == folders / "photo/one.jpg"
    assert groups[0].results == {name: next((folders / name).glob("one.*")) for name in METHODS}
    assert [group.name for group in find_groups([folders / "ours", folders / "theirs"])] == ["b/two", "one", "three"]


def test_folders_that_cannot_be_compared_are_refused(folders):
    one = [folders / "ours", folders / "theirs"]
    for given, names, fault in ((one[:1], None, "2"), (one, ["a", "a"], "different"), (one, ["a"], "2 different")):
        refusal(partial(find_groups, given, names), fault)
    (folders / "theirs/one.jpg").rename(folders / "other.jpg")
    refusal(lambda: find_groups([folders / "theirs", folders / "photo/b"]), "no relative path")


def test_each_viewer_has_an_order_of_their_own_which_stays():
    groups = many(40)
    ann, bob = draw(groups, "Ann"), draw(groups, "Bob")
    assert ann == draw(groups, "Ann") and ann != bob and ann != draw(groups, "Ann", seed=1)
    assert {group.name for group in ann} == {group.name for group in groups}
    first = Counter(next(iter(group.results)) for group in ann + bob)
    assert min(first[name] for name in METHODS) > 10  # of 80; nothing has a place of its own
    assert {len(group.results) for group in draw(groups, "Ann", at_a_time=2)} == {2}
    refusal(lambda: draw(groups, at_a_time=4), "2 to 3")


def test_a_judge_sees_15_of_30_groups_that_are_the_same_for_all():
    drawn = [{group.name for group in draw(many(50), f"viewer {n}", judge=True)} for n in range(20)]
    assert {len(names) for names in drawn} == {15}
    assert len(set.union(*drawn)) == 30
    refusal(lambda: draw(many(29), judge=True), "29")


def test_a_vote_is_in_the_file_at_once_and_a_stop_loses_none(tmp_path):
    poll = Poll(tmp_path / "new" / "votes.csv", many(3))
    number, groups = poll.show("Ann")
    poll.vote("Ann", number, 2)
    (vote,) = read_votes(poll.path)
    assert (vote.viewer, vote.group, vote.shown) == ("Ann", groups[0].name, tuple(groups[0].results))
    assert vote.chosen == vote.shown[2]
    poll.vote("Ann", number, 1)  # the second half of a double click
    again = Poll(poll.path, many(3))
    assert len(again.votes()) == 1 and again.show("Ann")[0] == 1 and again.show("Bob")[0] == 0
    again.vote("Ann", 1, 0)
    again.vote("Ann", 2, 0)
    again.vote("Ann", 3, 0)  # there is no fourth
    assert again.show("Ann")[0] == 3 and len(again.votes()) == 3
    refusal(lambda: again.show(""), "name")


def test_what_a_csv_cannot_be_is_named(tmp_path, capsys):
    path = tmp_path / "votes.csv"
    record(path, Vote('A, "B"\né', "g", "x", ("x", "y"), 1.25))
    assert read_votes(path) == [Vote('A, "B"\né', "g", "x", ("x", "y"), 1.2)]
    refusal(lambda: Poll(path, many(1)), "x, y")
    refusal(lambda: Poll(path / "below_a_file.csv", many(1)), "another --csv")
    for broken in ("Ann,g,z,x|y,1", "Ann,g,x,x|y,soon", "Ann,g,x"):
        path.write_text(f"viewer,group,chosen,shown,seconds\nAnn,g,x,x|y,1\n{broken}\n")
        assert main(["--csv", str(path), "--tally"]) == 2
        assert "Row 2" in capsys.readouterr().err
    for text in ("", "viewer,group\n", "viewer,group,chosen,shown,seconds\n"):
        path.write_text(text)
        assert main(["--csv", str(path), "--tally"]) == 2
    assert main(["--csv", str(tmp_path / "none.csv"), "--tally"]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_the_share_is_of_the_votes_a_result_was_shown_in_with_its_wilson_interval(tmp_path, capsys):
    for chosen, shown in (("a", ("a", "b")), ("a", ("c", "a")), ("b", ("b", "c"))):
        record(tmp_path / "votes.csv", Vote("Ann", "g", chosen, shown, 1))
    shares = [(share.name, share.chosen, share.shown) for share in tally(read_votes(tmp_path / "votes.csv"))]
    assert shares == [("a", 2, 2), ("b", 1, 2), ("c", 0, 2)]
    assert main(["--csv", str(tmp_path / "votes.csv"), "--tally"]) == 0
    assert "| b | 1 | 2 | 50.0 % | 9.5 to 90.5 % |" in capsys.readouterr().out


def test_sheets_and_page_show_photo_and_results_in_their_order_and_name_nothing(folders):
    results = {name: next((folders / name).glob("one.*")) for name in METHODS}
    picture = sheet(Group("one", folders / "photo/one.jpg", results), 40)
    seen = [tuple(picture[row, column].tolist()) for row, column in ((60, 20), (60, 90), (60, 160), (160, 20))]
    np.testing.assert_allclose(seen, [COLOURS[name] for name in ("photo", *METHODS)], atol=3)
    markup = re.sub('base64,[^"]*', "", as_html(Group("one", None, results), 40))
    assert markup.count("<img") == 3 and 'data-choice="3"' in markup
    assert not any(word in markup for word in ("one", *METHODS, str(folders)))


def test_a_filled_ballot_is_counted_with_the_key_of_its_sheets(folders, capsys):
    sheets, ballot = folders / "sheets", folders / "ballot.csv"
    command = ["--results", *(str(folders / name) for name in METHODS), "--sheets", str(sheets), "--size", "32"]
    assert main(command) == 0
    assert sorted(path.name for path in sheets.iterdir()) == ["group_001.jpg", "group_002.jpg", "key.csv"]
    assert main(command) == 2 and "another folder" in capsys.readouterr().err
    with (sheets / "key.csv").open(newline="") as file:
        ours = {row["group"]: row["letter"] for row in csv.DictReader(file) if row["name"] == "ours"}
    ballot.write_text("group,letter,remark\n" + "".join(f"00{n}, {ours[n].lower()},\n" for n in ("1", "2")))
    assert main(["--sheets", str(sheets), "--ballot", str(ballot)]) == 0
    assert "| ours | 2 | 2 | 100.0 % |" in capsys.readouterr().out
    (folders / "again").mkdir()
    twice = [str(ballot), str(folders / "again" / "ballot.csv")]
    assert main(["--sheets", str(sheets), "--ballot", *twice]) == 2 and "rename" in capsys.readouterr().err
    for row, fault in (("1,D", "letter D"), ("3,A", "group 3"), ("1,A\n1,B", "twice")):
        ballot.write_text(f"group,letter\n{row}\n")
        assert main(["--sheets", str(sheets), "--ballot", str(ballot)]) == 2
        assert fault in capsys.readouterr().err
