#!/usr/bin/env python
"""Once, before training: saliency references of the photos (Eq. 7), cached, and every image read to its end.

    python training/prepare.py --photos SOURCE --paintings SOURCE --cache DIR [--masks DIR] [--max_images N]
        [--no_references]
    python training/prepare.py frames FILM... --output DIR
    python training/prepare.py --pack DIR --photos SOURCE --paintings SOURCE --vgg_weights FILE [--config FILE ...]

training/data/sources.py says what a SOURCE is, training/data/cache.py what lies in the cache. The second form turns
films into a folder of paintings (training/data/frames.py). The third packs a training for a machine that has a GPU and
little else (training/run/pack.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sdpgan_hub.errors import SDPGANError
from training.data.cache import prepare


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 1 when files were skipped, 2 for what stops everything, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    of_films = argv[:1] == ["frames"]
    try:
        if of_films:
            from training.data.frames import frames_command

            return frames_command(argv[1:])
        if any(argument.split("=")[0] == "--pack" for argument in argv):
            from training.run.pack import pack_command

            return pack_command(argv)
        return prepare_command(argv)
    except (SDPGANError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; run the same command {'with --overwrite' if of_films else 'again'}", file=sys.stderr)
        return 130


def prepare_command(argv: list[str]) -> int:
    """The first form: 0, or 1 when files were skipped; SDPGANError for what stops it."""
    parser = argparse.ArgumentParser(
        prog="prepare.py",
        usage="prepare.py --photos SOURCE --paintings SOURCE --cache DIR [options]\n"
        "       prepare.py frames FILM... --output DIR [options]\n"
        "       prepare.py --pack DIR --photos SOURCE --paintings SOURCE --vgg_weights FILE [options]",
        description=(__doc__ or "").split("\n")[0],
        epilog="SOURCE: a folder; a text file of paths; or a data set, org/name[:split][/column] of the Hub or "
        "FOLDER:split[/column] on disk. Data sets are streamed once into CACHE/images, where training reads them, "
        "because a sample must be a function of its number.",
    )
    parser.add_argument("--photos", metavar="SOURCE", help="the source domain X")
    parser.add_argument("--paintings", metavar="SOURCE", help="the target domain Y")
    parser.add_argument("--cache", type=Path, metavar="DIR", required=True, help="where the results go")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="drawn binary masks, used where a photo has one")
    parser.add_argument(
        "--no_references",
        action="store_true",
        help="read the photos and make nothing of them: for a training without S and mask (cartoongan.yaml)",
    )
    parser.add_argument(
        "--max_images", type=int, metavar="N", help="images of each data set (default: as CACHE was last told, or all)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="threads and processes (default: one a core)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(argv)
    if options.photos is None and options.paintings is None:
        parser.error("give --photos, --paintings or both")
    settings = {key: getattr(options, key) for key in ("masks", "max_images", "workers")}
    settings |= {"references": not options.no_references, "progress": not options.quiet}
    summary = prepare(options.photos, options.paintings, options.cache, **settings)
    masks = f", {summary.masks} saliency maps from masks" if options.masks else ""
    print(f"{summary.made} made, {summary.kept} already there, {len(summary.failed)} skipped{masks}")
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
