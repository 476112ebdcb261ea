"""A style's folder to the Hugging Face Hub."""

from __future__ import annotations

import shlex
from pathlib import Path

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.styles import explain_hub_error

FILES = ("README.md", "config.json", "model.safetensors", "sample_sheet.jpg", "training.json")
"""What is pushed of a training's output, where it is there; never checkpoints, logs or the cache."""


def check_repository(repo_id: str) -> None:
    """Refuses, before anything is trained for it, a name that is no Hub id and a client without a token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise SDPGANError(f"--push_to_hub {repo_id!r} is not a Hub id; it looks like org/name.") from error
    if repo_id.count("/") != 1:
        raise SDPGANError(f"--push_to_hub {repo_id!r} is not a Hub id; it looks like org/name.")
    if get_token() is None:
        raise SDPGANError("--push_to_hub needs a token with the right to write; run `hf auth login` or set HF_TOKEN.")


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
        raise SDPGANError(
            f"The push failed, and {folder} holds the whole style: {explain_hub_error(error, repo_id)}\n"
            f"Try again with: {retry_command(folder, repo_id, private)}"
        ) from error


def retry_command(folder: Path, repo_id: str, private: bool | None = None) -> str:
    included = [part for name in FILES if (folder / name).is_file() for part in ("--include", name)]
    return shlex.join(["hf", "upload", repo_id, str(folder), ".", *included, *(["--private"] if private else [])])
