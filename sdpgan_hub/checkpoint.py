"""config.json and model.safetensors, written whole or not at all and read strictly."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .errors import SDPGANError
from .files import write_whole

MODEL_TYPE = "sdpgan"
"""The value of "model_type" in config.json by which a model of this package is recognised."""
COMPILED = "_orig_mod."
"""What torch.compile puts into the names of a module's parameters."""
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_LISTED = 4


def write_config(path: Path, arguments: Mapping[str, object]) -> None:
    """The model's `__init__` arguments as JSON, with "model_type"."""
    config = {"model_type": MODEL_TYPE, **arguments}
    write_whole(path, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def read_config(path: Path, defaults: Mapping[str, object], required: Collection[str]) -> dict[str, Any]:
    """The `__init__` arguments in the config.json at `path`, of the names and types of `defaults`.

    What the file leaves out has its default, but for the `required` keys.

    Raises:
        SDPGANError: if the file is not JSON, is of another model, or a key is missing, unknown or of another type.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SDPGANError(f"{path} is not a readable JSON file ({error}).") from error
    if not isinstance(config, dict):
        raise SDPGANError(f"{path} holds a JSON {type(config).__name__} where an object is expected.")
    model_type = config.pop("model_type", None)
    if model_type != MODEL_TYPE:
        raise SDPGANError(
            f"{path} is the config of another model: its model_type is {model_type!r}, not {MODEL_TYPE!r}."
        )
    kinds = {key: list if isinstance(value, tuple) else type(value) for key, value in defaults.items()}
    faults = [
        *_named("lacks the key", set(required) - config.keys()),
        *_named("has the unknown key", config.keys() - defaults.keys()),
        *(
            f"has {config[key]!r} for {key}, which is {kind.__name__}"
            for key, kind in kinds.items()
            if key in config and type(config[key]) is not kind
        ),
    ]
    if faults:
        raise SDPGANError(f"{path} {', and '.join(faults)}; was it written by another version of sdpgan_hub?")
    return {**defaults, **config}


def write_weights(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype = torch.float16) -> None:
    """`state` as safetensors in `dtype`: torch.float16, torch.bfloat16 or torch.float32.

    Raises:
        SDPGANError: if `dtype` is another one, or a value is not finite, or is too large for `dtype`.
    """
    if dtype not in DTYPES:
        raise SDPGANError(f"Weights are saved as {', '.join(map(str, DTYPES))}, not as {dtype}.")
    tensors = {key.replace(COMPILED, ""): value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    infinite = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if infinite:
        raise SDPGANError(
            f"{path.name} was not written: {_listed(infinite)} hold NaN or values beyond {dtype}; save an earlier "
            "state, or in torch.float32."
        )
    write_whole(path, safetensors.torch.save(tensors, metadata={"format": "pt"}))


def read_weights(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors of the safetensors file at `path`, as float32 on the CPU; `shapes` are those of the model.

    Raises:
        SDPGANError: if the file is broken or cut short, or a tensor is missing, extra, misshapen or not finite floats.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            found = {key: torch.Size(file.get_slice(key).get_shape()) for key in file.keys()}
            _check_tensors(path, found, shapes)
            tensors = {key: file.get_tensor(key) for key in shapes}
    except (OSError, safetensors.SafetensorError) as error:
        raise SDPGANError(f"{path} is not a whole safetensors file ({error}); download or save it again.") from error
    unusable = [key for key, value in tensors.items() if not (value.is_floating_point() and value.isfinite().all())]
    if unusable:
        raise SDPGANError(f"{path} holds values that are not finite floats in {_listed(unusable)}.")
    return {key: value.to(torch.float32) for key, value in tensors.items()}


def _check_tensors(path: Path, found: Mapping[str, torch.Size], shapes: Mapping[str, torch.Size]) -> None:
    misshapen = [
        f"{key} ({_shape(found[key])} instead of {_shape(shapes[key])})"
        for key in shapes
        if key in found and found[key] != shapes[key]
    ]
    faults = [
        *_named("lacks", [key for key in shapes if key not in found]),
        *_named("has the unknown", [key for key in found if key not in shapes]),
        *_named("has the misshapen", misshapen),
    ]
    if faults:
        raise SDPGANError(f"{path} does not fit its config.json: it {', and '.join(faults)}.")


def _named(fault: str, keys: Iterable[str]) -> list[str]:
    keys = list(keys)
    return [f"{fault} {_listed(keys)}"] if keys else []


def _listed(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more


def _shape(size: torch.Size) -> str:
    return " x ".join(map(str, size))
