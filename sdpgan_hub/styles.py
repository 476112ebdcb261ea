"""A style's name -> where its files are: shipped with this package, in a folder, or in a Hub repository."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import SDPGANError

SHIPPED = Path(__file__).parent / "styles"
"""The styles of this package: one folder each, with config.json, model.safetensors and README.md."""
DEFAULT = "vangogh"
"""The shipped style that the command line and the Space start with."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")


@dataclass(frozen=True)
class Source:
    """Where a model came from.

    Attributes:
        name: what the user called it.
        folder: the folder that holds its config.json and model.safetensors; a snapshot of the cache for a Hub model.
        commit: the commit of the Hub repository `name`; None for a folder or a shipped style.
        cache_dir: the cache that holds a Hub model; None for the default.
    """

    name: str
    folder: Path
    commit: str | None = None
    cache_dir: str | None = None

    @property
    def config(self) -> Path:
        return self.folder / CONFIG_FILE

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS_FILE

    def beside(self, file: str) -> Path | None:
        """Another file that lies beside the weights, fetched if need be; None where there is none.

        Raises:
            SDPGANError: the Hub cannot be asked, and why.
        """
        path = self.folder / file
        if self.commit is not None and not path.is_file():
            from huggingface_hub import errors, hf_hub_download

            try:
                hf_hub_download(self.name, file, revision=self.commit, cache_dir=self.cache_dir)
            except errors.RemoteEntryNotFoundError:
                return None
            except Exception as error:
                raise SDPGANError(explain_hub_error(error, self.name)) from error
        return path if path.is_file() else None

    def card(self) -> str | None:
        """The model card; None where there is none to be had: it is never worth failing for."""
        try:
            card = self.beside(CARD_FILE)
        except SDPGANError:
            return None
        return None if card is None else card.read_text(encoding="utf-8")


def available() -> dict[str, Path]:
    """The shipped styles: name -> folder, in alphabetical order."""
    return {config.parent.name: config.parent for config in sorted(SHIPPED.glob(f"*/{CONFIG_FILE}"))}


def resolve(name: str | os.PathLike) -> Path | str:
    """A folder, a shipped style's name or a Hub id "org/name", tried in this order, to the folder or the Hub id.

    A folder in the working directory that happens to bear a shipped style's name and holds no config.json does not
    hide that style.

    Raises:
        SDPGANError: if `name` is none of them.
    """
    shipped = available()
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else ""
    folder = Path(text).expanduser()
    if text and folder.is_dir() and (text not in shipped or (folder / CONFIG_FILE).is_file()):
        return folder
    if text in shipped:
        return shipped[text]
    if folder.is_file():
        raise SDPGANError(f"{text} is a file; give the folder that holds its {CONFIG_FILE} and {WEIGHTS_FILE}.")
    if isinstance(name, os.PathLike) or not is_hub_id(text):
        choice = ", ".join(shipped) or "none"
        raise SDPGANError(
            f"There is no style or folder {text or name!r}; give a shipped style ({choice}), a folder, or a Hub id "
            "such as org/name."
        )
    return text


def fetch_config(name: str | os.PathLike, *, revision: str | None = None, **options: Any) -> Source:
    """The style `name` (see `resolve`), its config.json on this machine; of a Hub model, the weights are not yet.

    revision: branch, tag or commit of a Hub model. The options are those of `huggingface_hub.hf_hub_download`; both
    mean nothing to a folder.

    Raises:
        SDPGANError: if the style, its repository, revision or its config.json is not to be had, and why.
    """
    place = resolve(name)
    if isinstance(place, Path):
        try:
            names = os.listdir(place)
        except OSError as error:
            raise SDPGANError(f"{place} cannot be read: {error.strerror}.") from error
        _check_complete(str(place), names)
        return Source(os.fspath(name), place)
    folder = _download(place, CONFIG_FILE, revision, options).parent
    cache_dir = options.get("cache_dir")
    return Source(place, folder, commit=folder.name, cache_dir=None if cache_dir is None else os.fspath(cache_dir))


def fetch_weights(source: Source, **options: Any) -> None:
    """The weights of a Hub model beside its config.json, of the same commit, whatever is pushed in the meantime.

    The options are those of `fetch_config`.

    Raises:
        SDPGANError: if they are not to be had, and why.
    """
    if source.commit is not None:
        _download(source.name, WEIGHTS_FILE, source.commit, options)


def _download(repo_id: str, file: str, revision: str | None, options: dict[str, Any]) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo_id, file, revision=revision, **options))
    except Exception as error:
        raise SDPGANError(_why_not_fetched(error, repo_id, revision, options.get("token"))) from error


def explain_hub_error(error: Exception, repo_id: str) -> str:
    """What the Hub client's exception means for the repository `repo_id`, in one sentence."""
    from huggingface_hub import constants, errors

    endpoint, ways = constants.ENDPOINT, "(token=, HF_TOKEN or `hf auth login`)"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"{repo_id} is gated: accept its terms at {endpoint}/{repo_id} and give a token that has access {ways}."
    if isinstance(error, errors.RepositoryNotFoundError):
        remedy = f"check the name, or give a token that has access {ways}"
        return f"{endpoint} has no model {repo_id}, or it is private: {remedy}."
    if status == 401:
        return f"{endpoint} does not accept the token given for {repo_id}, or misses one: give a valid one {ways}."
    if status == 403:
        return f"The token has no right to do this with {repo_id} on {endpoint}."
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        return (
            f"{repo_id} is not whole in the cache and {endpoint} was not asked or not reached: check the connection, "
            "HF_ENDPOINT, HF_HUB_OFFLINE and local_files_only."
        )
    if isinstance(error, errors.HFValidationError):
        return f"{repo_id!r} is not a Hub id; it looks like org/name."
    return f"The Hub client failed on {repo_id} at {endpoint}: {' '.join(str(error).split()) or type(error).__name__}"


def is_hub_id(text: str) -> bool:
    """Whether `text` has the form "org/name"."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def _check_complete(place: str, names: Iterable[str]) -> None:
    """Refuses a folder or repository that lacks a file, and a pickle in place of the weights."""
    names = sorted(names)
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if WEIGHTS_FILE not in names and pickles:
        raise SDPGANError(
            f"{place} has no {WEIGHTS_FILE}, only {', '.join(pickles)}: a pickle can run code and is never loaded; "
            "save the model as safetensors."
        )
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if name not in names]
    if missing:
        raise SDPGANError(f"{place} has no {' and no '.join(missing)}; it is not an SDP-GAN model.")


def _why_not_fetched(error: Exception, repo_id: str, revision: str | None, token: str | bool | None) -> str:
    from huggingface_hub import HfApi, constants, errors

    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo_id} on {constants.ENDPOINT} has no revision {revision!r}."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        try:
            _check_complete(repo_id, HfApi().list_repo_files(repo_id, revision=revision, token=token))
        except SDPGANError as incomplete:
            return str(incomplete)
        except Exception:  # the listing is only for the message
            pass
        return f"{repo_id} has no {CONFIG_FILE} or no {WEIGHTS_FILE}; it is not an SDP-GAN model."
    reason = explain_hub_error(error, repo_id)
    absent = (errors.RepositoryNotFoundError, errors.LocalEntryNotFoundError)
    if isinstance(error, absent) and not isinstance(error, errors.GatedRepoError):
        return f"There is no folder {repo_id} here, and {reason}"
    return reason
