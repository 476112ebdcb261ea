"""The command line of train.py, read and checked without torch: a wrong one is answered in a second."""

from __future__ import annotations

import argparse
from pathlib import Path

from sdpgan_hub.errors import SDPGANError

from ..data.sources import HubDataset, image_files, open_source
from .checkpoints import Checkpoints
from .config import TrainingConfig, add_arguments, check_batch, given_arguments, read_config


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    description = "Trains a style: photos and paintings in, a model folder out."
    parser = argparse.ArgumentParser(prog="train.py", description=description)
    parser.add_argument("--config", type=Path, help="YAML file of settings (training/configs/*.yaml)")
    source = "folder, list (.txt) or data set (org/name:split/column or FOLDER:split)"
    parser.add_argument("--photos", metavar="SOURCE", required=True, help=f"the source domain X: {source}")
    parser.add_argument("--paintings", metavar="SOURCE", required=True, help="the target domain Y, likewise")
    parser.add_argument("--output", type=Path, required=True, help="folder that becomes the style")
    parser.add_argument("--cache", type=Path, help="what prepare.py writes and reuses (default: OUTPUT/cache)")
    parser.add_argument(
        "--max_images",
        type=int,
        metavar="N",
        help="images of each data set (default: as the cache was last told, or all)",
    )
    parser.add_argument("--masks", type=Path, help="human-drawn masks to use as saliency references where there are")
    parser.add_argument("--sample_photos", type=Path, help="photos of the sample sheets (default: of --photos)")
    parser.add_argument(
        "--initial_style",
        metavar="NAME|FOLDER|HUB_ID",
        help="start from the G, S and, where it was kept, D of this style (default: from random weights); its networks "
        "must be the config's, but G may have fewer residual blocks",
    )
    parser.add_argument(
        "--teacher",
        metavar="NAME|FOLDER|HUB_ID",
        help="the style whose paintings G learns where w_distill is above 0 (default: --initial_style)",
    )
    parser.add_argument("--vgg_weights", type=Path, help="VGG-19 as a safetensors file (default: timm's download)")
    parser.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), help="default: Accelerate's setting")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU though there is an accelerator")
    parser.add_argument("--resume_from_checkpoint", metavar="latest|DIR", help="latest: the newest whole one")
    parser.add_argument(
        "--overwrite_output_dir", action="store_true", help="start anew, and delete the checkpoints of the run before"
    )
    parser.add_argument("--max_minutes", type=float, help="stop in time, with a checkpoint and a loadable result")
    parser.add_argument("--max_steps", type=int, help="stop after this many steps in all, likewise")
    parser.add_argument("--push_to_hub", metavar="ORG/NAME", help="push the result to the Hugging Face Hub at the end")
    parser.add_argument("--hub_every", type=int, metavar="N", help="push every N steps too")
    parser.add_argument("--hub_private", action="store_true", help="make the Hub repository a private one")
    parser.add_argument(
        "--no_sample_sheet_in_card",
        action="store_true",
        help="keep the sample photos and what became of them out of the model card",
    )
    add_arguments(parser)
    return parser.parse_args(argv)


def read_command_line(argv: list[str] | None = None) -> tuple[argparse.Namespace, TrainingConfig]:
    """The arguments and the settings of a training that can start, as far as names and folders tell.

    Raises:
        SDPGANError: one sentence on the first thing that is wrong.
    """
    arguments = parse_arguments(argv)
    config = read_config(arguments.config, given_arguments(arguments))
    for key in ("photos", "paintings"):
        source = open_source(getattr(arguments, key))
        if not isinstance(source, HubDataset):
            count = len(source.files(""))
            if key == "photos":
                check_batch(config, count)
    for key in ("masks", "sample_photos"):
        if getattr(arguments, key) is not None:
            image_files(getattr(arguments, key))
    if arguments.vgg_weights is not None and not arguments.vgg_weights.is_file():
        raise SDPGANError(f"{arguments.vgg_weights} is not a file; give VGG-19's weights as safetensors.")
    for key, least in (("max_minutes", 0), ("max_steps", 1), ("hub_every", 1)):
        value = getattr(arguments, key)
        if value is not None and value < least:
            raise SDPGANError(f"--{key} is {value}; it must be at least {least}.")
    start, which = arguments.initial_style, arguments.resume_from_checkpoint
    if config.saliency_network and not config.train_saliency and start is None and which is None:
        raise SDPGANError(
            "train_saliency is false, so S would stay random; name a style with a trained one by --initial_style, or "
            "set train_saliency true."
        )
    teacher = arguments.teacher or start
    if config.w_distill and teacher is None:
        raise SDPGANError(f"w_distill is {config.w_distill}; name the style to learn from with --initial_style.")
    if config.w_distill and Path(teacher).resolve() == arguments.output.resolve():
        raise SDPGANError(f"--output {arguments.output} would replace the style to learn from; give another folder.")
    if arguments.teacher is not None and not config.w_distill:
        raise SDPGANError(f"--teacher {arguments.teacher} has nothing to do; set a w_distill, such as 30.")
    if arguments.push_to_hub is not None:
        from ..publish import check_repository

        check_repository(arguments.push_to_hub)
    elif arguments.hub_every is not None or arguments.hub_private:
        raise SDPGANError("--hub_every and --hub_private need --push_to_hub ORG/NAME.")
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SDPGANError(f"{arguments.output} cannot be made a folder: {error.strerror}.") from error
    _check_checkpoints(arguments, Checkpoints(arguments.output / "checkpoints"))
    return arguments, config


def _check_checkpoints(arguments: argparse.Namespace, checkpoints: Checkpoints) -> None:
    """A run goes on from its own checkpoints, or there are none in its folder, or they may be deleted."""
    which, overwrite, own = arguments.resume_from_checkpoint, arguments.overwrite_output_dir, bool(checkpoints.all())
    if which == "latest" and not own:
        raise SDPGANError(
            f"{checkpoints.folder} holds no checkpoint to resume from; leave --resume_from_checkpoint out."
        )
    if which not in (None, "latest") and not Path(which).is_dir():
        raise SDPGANError(f"{which} is not a checkpoint folder; name one of {checkpoints.folder}, or 'latest'.")
    goes_on = which == "latest" or (which and Path(which).resolve().parent == checkpoints.folder.resolve())
    if goes_on and overwrite:
        raise SDPGANError(f"--overwrite_output_dir would delete {which}, which the run resumes from; leave one out.")
    if own and not goes_on and not overwrite:
        raise SDPGANError(
            f"{checkpoints.folder} holds the checkpoints of another run; go on from them with "
            "--resume_from_checkpoint latest, give another --output, or delete them with --overwrite_output_dir."
        )
