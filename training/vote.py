#!/usr/bin/env python
"""Blind votes: which of several results of the same photo is the best one (Sec. V-C and Table II of the paper).

    python training/vote.py --results DIR DIR ... --csv FILE [--photos DIR]     a page in the browser
    python training/vote.py --csv FILE --tally                                  the shares of all votes so far
    python training/vote.py --results DIR DIR ... --sheets DIR [--photos DIR]   pictures to judge by looking at them
    python training/vote.py --sheets DIR --ballot FILE ...                      the shares of those judgements

A group is a photo and what each folder made of it: files of the same relative path, suffix aside. Order and places are
shuffled for each viewer, nothing is named, and a vote is in the CSV as soon as it is cast: whoever comes back under the
same name goes on. `--judge` is the paper's protocol, 15 of 30 groups for each viewer (at `--size 256`). A sheet
letters the results A, B, C ...; DIR/key.csv says whose they are, and a ballot is a CSV with the columns group,letter.
"""

from __future__ import annotations

import argparse
import base64
import csv
import html
import io
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import write_whole
from training.data import pictures
from training.data.pictures import read_scaled
from training.metrics.poll import Group, Poll, Vote, draw, find_groups, read_rows, read_votes, table

KEY_COLUMNS = ("group", "letter", "name", "photo")
BALLOT_COLUMNS = ("group", "letter")
LETTERS = "ABCDEFGHI"
LABEL_HEIGHT, SHEET_COLUMNS, GAP = 48, 3, 8

HEAD = """<script>
const choose = (number) => document.getElementById("choice-" + number)?.click();
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, textarea")) return;
  if (/^[1-9]$/.test(event.key)) choose(event.key);
});
document.addEventListener("click", (event) => choose(event.target.closest("[data-choice]")?.dataset.choice));
</script>"""
CSS = """
.group { display: flex; flex-wrap: wrap; gap: 16px; justify-content: center; text-align: center; }
.group figure { margin: 0; }
.group img { display: block; max-width: none; }
.group [data-choice] { cursor: pointer; }
.group [data-choice]:hover img { outline: 4px solid #2f6395; }
"""


def as_html(group: Group, size: int) -> str:
    """The photo and its results, numbered from 1, at a shorter side of `size` pixels; the files are not named."""

    def figure(label: str, path: Path, attribute: str = "") -> str:
        source = "data:image/jpeg;base64," + base64.b64encode(pictures.encode(read_scaled(path, size), ".jpg")).decode()
        return f'<figure{attribute}><img src="{source}" alt="{label}"><figcaption>{label}</figcaption></figure>'

    figures = [figure("Photo", group.photo)] if group.photo else []
    figures += [figure(f"{n}", path, f' data-choice="{n}"') for n, path in enumerate(group.results.values(), 1)]
    return f'<div class="group">{"".join(figures)}</div>'


def sheet(group: Group, size: int) -> np.ndarray:
    """The photo, then the results lettered A, B, C ..., three in a row; uint8 H x W x 3, RGB."""
    files = ([("Photo", group.photo)] if group.photo else []) + list(zip(LETTERS, group.results.values(), strict=False))
    labels, paths = zip(*files, strict=True)
    columns = min(SHEET_COLUMNS, len(files))
    return pictures.contact_sheet([read_scaled(path, size) for path in paths], columns, GAP, labels, LABEL_HEIGHT)


def write_sheets(folder: Path, groups: list[Group], size: int) -> None:
    """DIR/group_<number>.jpg for each group and DIR/key.csv; SDPGANError where a key lies already."""
    if (folder / "key.csv").exists():
        raise SDPGANError(f"{folder} has the sheets of another vote, whose ballots need its key; give another folder.")
    key = io.StringIO()
    writer = csv.writer(key)
    writer.writerow(KEY_COLUMNS)
    for number, group in enumerate(groups, 1):
        pictures.write(folder / f"group_{number:03d}.jpg", sheet(group, size))
        letters = zip(LETTERS, group.results, strict=False)
        writer.writerows((number, letter, name, group.name) for letter, name in letters)
    write_whole(folder / "key.csv", key.getvalue().encode())


def read_ballot(path: Path, key: Path) -> list[Vote]:
    """The votes of a ballot (columns group,letter) on the sheets of `key`; a group may be left out.

    Raises:
        SDPGANError: a row names a group or letter that is on no sheet, or a group for the second time.
    """
    names: dict[str, dict[str, str]] = {}
    for row in read_rows(key, KEY_COLUMNS):
        names.setdefault(row["group"], {})[row["letter"]] = row["name"]
    votes: dict[str, Vote] = {}
    for row in read_rows(path, BALLOT_COLUMNS):
        group, letter = row["group"].strip().lstrip("0"), row["letter"].strip().upper()
        if letter not in names.get(group, {}) or group in votes:
            fault = "twice" if group in votes else f"with the letter {letter}, which is on no sheet"
            raise SDPGANError(f"{path} has group {row['group']} {fault}; correct that row.")
        votes[group] = Vote(path.stem, group, names[group][letter], tuple(names[group].values()), 0.0)
    return list(votes.values())


def page(poll: Poll, size: int, viewer: str = "") -> Any:
    """The page as `gradio.Blocks`: a name, then group after group, then the tally."""
    import gradio as gr

    with gr.Blocks(title="Which one is best?", analytics_enabled=False, fill_width=True) as blocks:
        with gr.Row() as entrance:
            name = gr.Textbox(viewer, label="Your name", elem_id="viewer")
            start = gr.Button("Start", variant="primary", elem_id="start")
        progress = gr.Markdown("You will see results of the same photo side by side; choose the best one of each.")
        with gr.Row(visible=False) as choices:
            buttons = [gr.Button(f"{number}", elem_id=f"choice-{number}") for number in range(1, poll.at_a_time + 1)]
        pictures = gr.HTML()
        shown = gr.Number(-1, visible=False)  # comes back with a vote: a second click cannot meet the next group

        def act(name: str, number: int = -1, place: int | None = None) -> dict:
            viewer = (name or "").strip()
            try:
                if place is not None:
                    poll.vote(viewer, int(number), place)
                due, groups = poll.show(viewer)
                over = due == len(groups)
                text = f"**{due + 1} of {len(groups)}**: which one is best? Click it or press its key."
                if over:
                    text = f"That was the last one, thank you.\n\n{table(poll.votes())}"
                figures = "" if over else as_html(groups[due], size)
            except SDPGANError as error:
                raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error
            visible = {entrance: gr.Row(visible=False), choices: gr.Row(visible=not over)}
            return {progress: text, pictures: figures, shown: due, **visible}

        outputs = [entrance, progress, choices, pictures, shown]
        quiet = {"show_progress_on": [pictures], "api_visibility": "private"}  # elsewhere it would cover the buttons
        gr.on([start.click, name.submit], act, [name], outputs, **quiet)
        for place, button in enumerate(buttons):
            button.click(partial(act, place=place), [name, shown], outputs, **quiet)
    return blocks


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vote.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, nargs="+", metavar="DIR", help="what each method made of the photos")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the methods (default: the folders')")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="show the photo beside its results")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="where the votes go, or are")
    parser.add_argument("--tally", action="store_true", help="print the shares of the votes in --csv and stop")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="write pictures to judge and their key, no page")
    parser.add_argument("--ballot", type=Path, nargs="+", metavar="FILE", help="print the shares of judged --sheets")
    parser.add_argument("--judge", action="store_true", help="the paper's protocol: 15 of 30 groups for each viewer")
    parser.add_argument("--at_a_time", type=int, metavar="N", help="results of a group, drawn at random (default: all)")
    parser.add_argument("--viewer", default="", metavar="NAME", help="who votes (default: the page asks)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn and in which order (default: 0)")
    parser.add_argument("--size", type=int, default=512, help="shorter side of each picture, px (default: 512)")
    parser.add_argument("--port", type=int, help="of the page (default: GRADIO_SERVER_PORT, or a free one from 7860)")
    options = parser.parse_args(argv)
    if (options.tally and not options.csv) or (options.ballot and not options.sheets):
        parser.error("give --csv with --tally, --sheets with --ballot")
    if not (options.tally or options.ballot) and not (options.results and (options.csv or options.sheets)):
        parser.error("give --results, and --csv for the page or --sheets for pictures")
    if options.size < 1:
        parser.error("--size must be at least 1")
    return options


def main(argv: list[str] | None = None) -> int:
    """The command line: 0, or 2 with one sentence on stderr."""
    options = parse_arguments(argv)
    try:
        if options.tally:
            print(table(read_votes(options.csv)))
            return 0
        if options.ballot:
            key = options.sheets / "key.csv"
            if len({path.stem for path in options.ballot}) < len(options.ballot):
                raise SDPGANError("Two ballots have one name, which is the viewer's; rename one.")
            print(table([vote for path in options.ballot for vote in read_ballot(path, key)]))
            return 0
        groups = find_groups(options.results, options.names, options.photos)
        print(f"Photos with a result in every folder: {len(groups)}.", flush=True)
        protocol = {"seed": options.seed, "at_a_time": options.at_a_time, "judge": options.judge}
        if options.sheets:
            write_sheets(options.sheets, draw(groups, options.viewer.strip(), **protocol), options.size)
            return 0
        blocks = page(Poll(options.csv, groups, **protocol), options.size, options.viewer)
        blocks.launch(server_port=options.port, head=HEAD, css=CSS, share=False, ssr_mode=False, footer_links=[])
    except SDPGANError as error:
        print(f"vote.py: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f'vote.py: {error.name} is not installed; pip install -e ".[training,space]".', file=sys.stderr)
        return 2
    except OSError as error:
        print(f"vote.py: {str(error).partition('.')[0]}; choose another with --port.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
