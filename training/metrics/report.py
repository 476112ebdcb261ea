"""What `training.evaluate.evaluate` found, in few figures (`headline`) and as Markdown tables (`table`)."""

from __future__ import annotations

from typing import Any

from . import style
from .deception import PHOTO
from .saliency import SHOWN

NOTABLE = 0.05
"""The share of a class above which enlarged images are worth a sentence."""


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """The figures by which styles are compared: name with its unit or sense -> value, None where it was not measured.

    The first two are a pair, and neither means anything alone: the photo itself keeps all detail and deceives nobody.
    Of the generator alone, where the style also keeps some of the photo's own detail: anyone can add that.
    """
    alone = result.get("generator") or result
    layer = result["settings"]["feature_layer"]
    kid, fid = (style.figure(name, layer) for name in ("KID", "FID"))
    ours, photos = alone["style"]["outputs"], result["style"]["photos"]
    salient, background = alone["detail"]["salient"], alone["detail"]["background"]
    found, deceived = alone["artifacts"]["outputs"], alone.get("deception") or {}
    figures = {
        "deception rate": deceived.get("rate"),
        "salient detail kept": salient["detail_kept"],
        "taken for a photo": deceived.get("taken_for_photo"),
        "classifier's accuracy": deceived.get("held_back_accuracy"),
        "chroma / paintings'": alone["colour"]["ratio"],
        kid: ours[kid],
        f"{kid} / photos'": ours[kid] / photos[kid] if photos[kid] > 0 else None,
        fid: ours[fid],
        "background detail kept": background["detail_kept"],
        "salient VGG distance": salient["content_distance"],
        "saliency change": alone["detail"]["saliency_change"],
        "checkerboard": max(found["checkerboard_2px"], found["checkerboard_4px"]),
        "checkerboard levels": found["checkerboard_levels"],
        "grain of flat areas": found["flat_grain"],
        "border error": found["border_error"],
        "near-constant share": found["near_constant_share"],
        "colour shift": found["colour_shift"],
    }
    if result.get("robustness"):
        figures |= {
            "tone correlation": result["robustness"]["tone"]["correlation"],
            "change at a shift of 1 px": result["robustness"]["shift"]["1"],
        }
    return figures


def table(result: dict[str, Any]) -> str:
    """All of it, each figure with what it was made from."""
    parts = [_pair(result), _deception(result), _colour(result), _style(result), _detail(result), _artifacts(result)]
    parts.append(_robustness(result))
    if result["settings"]["outputs_resized"]:
        parts.append(
            f"{result['settings']['outputs_resized']} outputs were of another size than the photos measured here and "
            "were scaled; to compare artifacts and detail alike, paint the photos that `--write DIR` leaves in "
            "DIR/photos."
        )
    return "\n\n".join(part for part in parts if part)


def saliency_table(figures: dict[str, dict[str, float]]) -> str:
    """The figures of `training.metrics.saliency.accuracy` as a Markdown table, a row for each method."""
    rows = [[name, *(_number(one[key]) for key in SHOWN)] for name, one in figures.items()]
    return markdown(["method", *SHOWN], rows)


def _versions(result: dict[str, Any], part: str) -> list[tuple[str, dict[str, Any]]]:
    """A label and that part of the figures, of each version measured; the generator alone comes first."""
    share, name = result["settings"]["keep_detail"], result["name"]
    if result.get("generator"):
        alone = result["generator"]
        return [(f"{name}, generator alone", alone[part]), (f"{name}, keep_detail {share:g}", result[part])]
    return [(name, result[part])]


def _pair(result: dict[str, Any]) -> str:
    figures = headline(result)
    rate, detail = figures["deception rate"], figures["salient detail kept"]
    alone = "" if result["settings"]["keep_detail"] is None else " of the generator alone"
    first = "not measured (give --painters)" if rate is None else f"{rate:.3f}"
    return f"**Deception rate {first}, salient detail kept {_number(detail)}**{alone} (1 = the photo itself)."


def _deception(result: dict[str, Any]) -> str:
    first = result.get("deception")
    if first is None:
        return ""
    classes = list(first["per_class"])
    rows = [
        [label, *(f"{one['per_class'][name]:.3f}" for name in classes), str(one["images"])]
        for label, one in [*_versions(result, "deception"), ("untouched photos", first["photos"])]
    ]
    names = [f"**{name}**" if name == first["painter"] else f"a {name}" if name == PHOTO else name for name in classes]
    kept = ", ".join(f"{name} {one['recognised']:.2f} of {one['images']}" for name, one in first["held_back"].items())
    lines = [
        f"**Deception** (a classifier that recognises {first['held_back_accuracy']:.3f} of held-back images: {kept}; "
        f"learnt from {', '.join(f'{count} {name}' for name, count in first['learnt_from'].items())}; "
        f"shorter side {first['size']} px, centre square)",
        "",
        markdown(["taken for", *names, "images"], rows),
    ]
    looked_at = {name: count + first["held_back"][name]["images"] for name, count in first["learnt_from"].items()}
    enlarged = {name: count for name, count in first["enlarged"].items() if count > NOTABLE * looked_at[name]}
    if enlarged:
        counts = ", ".join(f"{count} of {name}" for name, count in enlarged.items())
        lines += [
            "",
            f"Images smaller than that were enlarged ({counts}) and may be known by their blur; give a lower "
            "--classifier_size.",
        ]
    return "\n".join(lines)


def _colour(result: dict[str, Any]) -> str:
    first = result["colour"]
    rows = [[label, _number(one["outputs"], 1), _number(one["ratio"], 2)] for label, one in _versions(result, "colour")]
    ratio = first["photos"] / first["paintings"] if first["paintings"] > 0 else None
    rows += [["untouched photos", _number(first["photos"], 1), _number(ratio, 2)],
             ["paintings", _number(first["paintings"], 1), "1.00"]]  # fmt: skip
    return "**Colour**\n\n" + markdown(["of", "mean chroma (CIELAB C*)", "/ paintings'"], rows)


def _style(result: dict[str, Any]) -> str:
    settings, layer = result["settings"], result["settings"]["feature_layer"]
    fid, kid = style.figure("FID", layer), style.figure("KID", layer)
    scores = "IS" in result["style"]["outputs"]
    rows = []
    for label, one in [
        *((label, version["outputs"]) for label, version in _versions(result, "style")),
        ("untouched photos", result["style"]["photos"]),
        ("half of the paintings", result["style"]["paintings"]),
    ]:
        row = [label, f"{one[kid]:.5f} ({one[f'{kid} std']:.5f})", f"{one[fid]:.3f}"]
        row += [f"{one['IS']:.2f}" if "IS" in one else ""] if scores else []
        subsets = f"{style.KID_SUBSETS} x {one['KID subset size']}"
        rows.append([*row, f"{one['images']}, {one['paintings']}", subsets, layer, settings["resize"]])
    head = ["against the paintings", f"{kid} (std of subsets)", fid, *(["IS"] if scores else [])]
    text = (
        f"**Style** ({kid} is the one to trust below 2,000 images; lower is closer to the paintings, be it in palette "
        "alone)\n\n" + markdown([*head, "images, paintings", "KID subsets", "layer", "resize"], rows)
    )
    share = headline(result)[f"{kid} / photos'"]
    return text if share is None else f"{text}\n\nThe outputs' {kid} is {share:.2f} of the untouched photos'."


def _detail(result: dict[str, Any]) -> str:
    detail, settings = result["detail"], result["settings"]
    keys = ("detail_kept", "ssim", "gradient_correlation", "content_distance")
    rows = [
        [label, region, *(_number(one[region][key]) for key in keys), str(one[region]["photos"])]
        for label, one in _versions(result, "detail")
        for region in ("salient", "background")
    ]
    head = ["of", "region", "detail kept", "luminance SSIM", "gradient correlation", "VGG content distance", "photos"]
    changes = [f"{label} {_number(one['saliency_change'])}" for label, one in _versions(result, "detail")]
    return (
        f"**Detail** ({detail['human_masks']} photos with human masks, {detail['reference_masks']} with the saliency "
        f"reference; shorter side {settings['size']} px; VGG: {settings['vgg_weights']})\n\n{markdown(head, rows)}\n\n"
        f"Change of the saliency map, by the reference method: {'; '.join(changes)}."
    )


def _artifacts(result: dict[str, Any]) -> str:
    keys = {
        "checkerboard_2px": "checkerboard 2 px (1 = none)",
        "checkerboard_4px": "4 px (1 = none)",
        "checkerboard_levels": "grey levels of 255",
        "flat_grain": "grain of flat areas (grey levels)",
        "border_error": "border error (1 = none)",
        "near_constant_share": "near-constant share",
        "colour_shift": "colour shift (CIEDE2000)",
        "colour_shift_unexplained": "not explained by one palette",
    }
    found = [(label, one["outputs"]) for label, one in _versions(result, "artifacts")]
    found.append(("untouched photos", result["artifacts"]["photos"]))
    rows = [[label, *(_number(one.get(key)) for key in keys)] for label, one in found]
    return "**Artifacts**\n\n" + markdown(["of", *keys.values()], rows)


def _robustness(result: dict[str, Any]) -> str:
    found = result.get("robustness")
    if found is None:
        return ""
    tone, shift = found["tone"], found["shift"]
    row = [_number(tone["correlation"]), _number(tone["black"], 1), _number(tone["white"], 1)]
    row += [_number(value, 2) for value in shift.values()]
    head = ["correlation of mean luma", "of a black image", "of a white one", *(f"moved by {k} px" for k in shift)]
    return (
        f"**Robustness** of the generator alone ({found['photos']} photos; mean luma in and out over {tone['pairs']} "
        f"exposures; mean luma and mean change in grey levels of 255)\n\n{markdown(head, [row])}"
    )


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
