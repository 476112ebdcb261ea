"""The model card (README.md) that is saved beside a model's weights, made from `model_cards/card.md`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .errors import SDPGANError

METADATA = "base_model datasets language license license_link license_name metrics tags thumbnail".split()
"""Keywords that go into the card's front matter; `tags` are added to the package's own."""

SECTIONS = {"training_data": "Training data", "training": "Training", "evaluation": "Figures", "terms": "Terms"}
"""Keywords that become a section of Markdown under the heading given here."""

TEXTS = ("title", "summary", "gallery", "limits")
"""Keywords that fill a place of the template: Markdown."""

_TEMPLATES = [Path(__file__).parents[up] / "model_cards" / "card.md" for up in (0, 1)]
"""In an installed package it lies inside, in a checkout beside it."""


def render(front_matter: Mapping[str, Any], keywords: Mapping[str, Any], **facts: Any) -> ModelCard:
    """The card as Markdown with YAML front matter.

    Args:
        front_matter: the package's own metadata (library_name, pipeline_tag, license, tags).
        keywords: what is known of this model: any of `METADATA`, `SECTIONS` and `TEXTS`.
        facts: what the template says of every model: model_id, config, dtype, parameter counts, paper_url.

    Raises:
        SDPGANError: for an unknown keyword, and for a licence "other" that is not named.
    """
    known = {*METADATA, *SECTIONS, *TEXTS}
    if unknown := sorted(keywords.keys() - known):
        raise SDPGANError(f"Unknown model card keyword {', '.join(unknown)}; known are {', '.join(sorted(known))}.")
    metadata = {**front_matter, **{key: keywords[key] for key in METADATA if key in keywords}}
    metadata["tags"] = sorted({*front_matter.get("tags", ()), *keywords.get("tags", ())})
    if metadata.get("license") == "other" and not metadata.get("license_name"):
        raise SDPGANError("A model card with license 'other' needs a license_name, and a license_link to its text.")
    return ModelCard.from_template(
        ModelCardData(**metadata),
        template_str=next(path for path in _TEMPLATES if path.is_file()).read_text(encoding="utf-8"),
        sections={heading: keywords[key] for key, heading in SECTIONS.items() if keywords.get(key)},
        **{key: keywords.get(key, "") for key in TEXTS},
        **facts,
    )
