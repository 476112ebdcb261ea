#!/usr/bin/env python
"""Pushes a style's folder to the Hugging Face Hub: weights, D, card, sheet and provenance.

    python training/publish.py STYLE org/name [--private] [--message TEXT]

STYLE is the output of train.py or a folder of sdpgan_hub/styles. D lets others train on from this style.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.styles import explain_hub_error, is_hub_id

FILES = (
    "README.md", "config.json", "model.safetensors", "discriminator.safetensors", "training.json", "sample_sheet.jpg",
    "gallery.jpg",
)  # fmt: skip
"""What is pushed of a style, where it is there; never checkpoints, logs or the cache."""


def check_repository(repo_id: str) -> None:
    """Refuses, before anything is trained for it, a name that is no Hub id and a client without a token."""
    from huggingface_hub import get_token

    if not is_hub_id(repo_id):
        raise SDPGANError(f"{repo_id!r} is not a Hub id; it looks like org/name.")
    if get_token() is None:
        raise SDPGANError(f"{repo_id} needs a token with the right to write; run `hf auth login` or set HF_TOKEN.")


def push(folder: Path, repo_id: str, message: str, private: bool | None = None) -> str:
    """Commits the `FILES` of `folder` to `repo_id`, made if need be, and returns the commit's URL.

    Raises:
        SDPGANError: what the Hub or the network had against it, and the command that tries again.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id, folder_path=folder, allow_patterns=list(FILES), commit_message=message
        )
    except Exception as error:  # whatever the client meets on its way is one sentence to the user
        command = [sys.executable, __file__, str(folder), repo_id, *(["--private"] if private else [])]
        raise SDPGANError(
            f"The push failed, and {folder} holds the whole style: {explain_hub_error(error, repo_id)}\n"
            f"Try again with: {shlex.join(command)}"
        ) from error


def main(argv: list[str] | None = None) -> int:
    """The command line: 0, or 2 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="publish.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("style", type=Path, metavar="STYLE", help="the folder to push")
    parser.add_argument("repository", metavar="org/name", help="made if need be")
    parser.add_argument("--private", action="store_true", help="make a new repository a private one")
    parser.add_argument("--message", default="Upload the style", help="of the commit (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        check_repository(options.repository)
        if not (options.style / "model.safetensors").is_file():
            raise SDPGANError(f"{options.style} holds no model.safetensors; give the output folder of train.py.")
        print(f"pushed {push(options.style, options.repository, options.message, options.private or None)}")
    except SDPGANError as error:
        print(f"publish.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
