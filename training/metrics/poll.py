"""The core of `training/vote.py`: groups of unnamed results, the CSV of votes, shares with confidence intervals."""

from __future__ import annotations

import csv
import math
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from scipy.stats import binomtest

from sdpgan_hub.errors import SDPGANError

from ..data.sources import by_stem

JUDGED_GROUPS, GROUPS_PER_VIEWER = 30, 15  # Sec. V-C
MOST_AT_A_TIME = 9  # as many as there are digit keys
VOTE_COLUMNS = ("viewer", "group", "chosen", "shown", "seconds")


@dataclass(frozen=True)
class Group:
    """One photo, named by its relative path without suffix, and its results: folder's name -> file, as shown."""

    name: str
    photo: Path | None
    results: dict[str, Path]


@dataclass(frozen=True)
class Vote:
    """One viewer's choice in one group, and the names it was chosen from, in the order shown."""

    viewer: str
    group: str
    chosen: str
    shown: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Share:
    """How often a result was chosen where it was shown, with the 95 % interval of that share (Wilson's)."""

    name: str
    chosen: int
    shown: int
    interval: tuple[float, float]


def find_groups(folders: list[Path], names: list[str] | None = None, photos: Path | None = None) -> list[Group]:
    """The photos that each of `folders` has a result of (and that `photos` holds), sorted; the others are left out.

    Raises:
        SDPGANError: fewer than two folders, names that are not one for each and distinct, nothing in common.
    """
    names = names or [folder.resolve().name for folder in folders]
    if len(folders) < 2:
        raise SDPGANError("A vote needs --results of at least 2 folders.")
    if len(names) != len(folders) or len(set(names)) < len(names) or any("|" in name or not name for name in names):
        raise SDPGANError(f'Give {len(folders)} different --names without "|", not {", ".join(names)}.')
    found = [by_stem(folder) for folder in folders]
    photo_of = by_stem(photos) if photos else dict.fromkeys(found[0])
    common = sorted(set(photo_of).intersection(*found))
    if not common:
        where = ", ".join(map(str, [*folders, *([photos] if photos else [])]))
        raise SDPGANError(f"{where} share no relative path, suffixes aside; results must be named as their photos.")
    results = [dict(zip(names, (files[stem] for files in found), strict=True)) for stem in common]
    return [Group(stem.as_posix(), photo_of[stem], of) for stem, of in zip(common, results, strict=True)]


def draw(
    groups: list[Group], viewer: str = "", seed: int = 0, at_a_time: int | None = None, judge: bool = False
) -> list[Group]:
    """The groups as one viewer sees them, in random order, and `at_a_time` results of each (default: all) likewise.

    The same arguments give the same list. judge: 15 groups of 30, which are the same 30 for every viewer of a seed.
    Raises SDPGANError for fewer than 30 groups then, and for an `at_a_time` that cannot be.
    """
    names = list(groups[0].results)
    count = len(names) if at_a_time is None else at_a_time
    most = min(len(names), MOST_AT_A_TIME)
    if not 2 <= count <= most:
        raise SDPGANError(f"{count} of {len(names)} results cannot be shown at a time; set --at_a_time, 2 to {most}.")
    if judge and len(groups) < JUDGED_GROUPS:
        raise SDPGANError(f"--judge takes {JUDGED_GROUPS} groups and there are {len(groups)}; leave it out.")
    pool = random.Random(f"{seed}").sample(groups, JUDGED_GROUPS) if judge else groups
    chance = random.Random(f"{seed}/{viewer}")
    drawn = chance.sample(pool, GROUPS_PER_VIEWER if judge else len(pool))
    return [replace(group, results={n: group.results[n] for n in chance.sample(names, count)}) for group in drawn]


def record(path: Path, *votes: Vote) -> None:
    """Append votes to the CSV, made with its header if need be; SDPGANError where it cannot be written."""
    rows = [(vote.viewer, vote.group, vote.chosen, "|".join(vote.shown), f"{vote.seconds:.1f}") for vote in votes]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows if file.tell() else [VOTE_COLUMNS, *rows])
    except OSError as error:
        raise SDPGANError(f"{path} cannot be written: {error.strerror}; give another --csv.") from error


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV with these columns, in any order and among others; SDPGANError where it is none."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, found = list(reader), set(reader.fieldnames or ())
    except OSError as error:
        raise SDPGANError(f"{path} cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise SDPGANError(f"{path} cannot be read as a CSV ({error}).") from error
    if not found.issuperset(columns):
        raise SDPGANError(f"{path} needs the columns {','.join(columns)}, named in its first line.")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise SDPGANError(f"Row {number} of {path} has not as many values as columns; repair or remove it.")
    return rows


def read_votes(path: Path) -> list[Vote]:
    """The votes that `record` wrote; SDPGANError naming the row that is none."""
    votes = []
    for number, row in enumerate(read_rows(path, VOTE_COLUMNS), 1):
        shown = tuple(row["shown"].split("|"))
        try:
            seconds = float(row["seconds"])
        except ValueError:
            seconds = math.nan
        if row["chosen"] not in shown or not math.isfinite(seconds):
            raise SDPGANError(f"Row {number} of {path} is no vote; repair or remove it.")
        votes.append(Vote(row["viewer"], row["group"], row["chosen"], shown, seconds))
    return votes


def tally(votes: list[Vote]) -> list[Share]:
    """The share of each result among the votes that it was shown in, largest first."""
    chosen = Counter(vote.chosen for vote in votes)
    shown = Counter(name for vote in votes for name in vote.shown)
    shares = [
        Share(name, chosen[name], count, binomtest(chosen[name], count).proportion_ci(method="wilson"))
        for name, count in shown.items()
    ]
    return sorted(shares, key=lambda share: (-share.chosen / share.shown, share.name))


def table(votes: list[Vote]) -> str:
    """The tally as Markdown; the intervals take the votes of one viewer for independent. SDPGANError without a vote."""
    if not votes:
        raise SDPGANError("There is no vote to count yet; cast one first.")
    lines = ["| result | chosen | of | share | 95 % interval |", "|---|---:|---:|---:|---:|"]
    for share in tally(votes):
        low, percent, high = (100 * x for x in (share.interval[0], share.chosen / share.shown, share.interval[1]))
        lines.append(f"| {share.name} | {share.chosen} | {share.shown} | {percent:.1f} % | {low:.1f} to {high:.1f} % |")
    by_chance = 100 * sum(1 / len(vote.shown) for vote in votes) / len(votes)
    counts = f"Votes: {len(votes)}, viewers: {len({vote.viewer for vote in votes})}"
    return "\n".join([*lines, "", f"{counts}; a result chosen by chance has {by_chance:.1f} %."])


class Poll:
    """The votes of any number of viewers on the same groups: what the page does, without the page.

    protocol: `seed`, `at_a_time` and `judge` of `draw`. Raises SDPGANError for a CSV that cannot be written or holds
    votes on other results.
    """

    def __init__(self, path: Path, groups: list[Group], **protocol):
        self.path, self.groups, self.protocol = path, groups, protocol
        self.at_a_time = len(draw(groups, **protocol)[0].results)
        self._lock, self._since = threading.Lock(), {}
        record(path)  # nothing yet, but a file that cannot be written is known before the first viewer comes
        others = {name for vote in self.votes() for name in vote.shown} - set(groups[0].results)
        if others:
            raise SDPGANError(f"{path} holds votes on {', '.join(sorted(others))}; give another --csv.")

    def votes(self) -> list[Vote]:
        """All that were cast, by this run and by earlier ones."""
        return read_votes(self.path)

    def show(self, viewer: str) -> tuple[int, list[Group]]:
        """The viewer's groups and the number, from 0, of the first without a vote: len(groups) when all have one."""
        number, groups = self._due(viewer)
        self._since[viewer, number] = time.monotonic()
        return number, groups

    def vote(self, viewer: str, number: int, place: int) -> None:
        """Record the result at `place`, from 0, as the best of group `number`, unless that has its vote already."""
        with self._lock:
            due, groups = self._due(viewer)
            if number != due or due == len(groups):  # a second click, or a second tab
                return
            seconds = time.monotonic() - self._since.get((viewer, number), time.monotonic())
            shown = tuple(groups[number].results)
            record(self.path, Vote(viewer, groups[number].name, shown[place], shown, seconds))

    def _due(self, viewer: str) -> tuple[int, list[Group]]:
        if not viewer:
            raise SDPGANError("Type a name first; it keeps your votes apart from those of others.")
        groups = draw(self.groups, viewer, **self.protocol)
        cast = {vote.group for vote in self.votes() if vote.viewer == viewer}
        return next((n for n, group in enumerate(groups) if group.name not in cast), len(groups)), groups
