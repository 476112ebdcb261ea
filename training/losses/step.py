"""The gradients of one step: all terms of the objective, one network after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call

from sdpgan_hub import SDPGAN
from sdpgan_hub.filters import NOISE_PERIOD, crop_and_resize, resized, underpainted

from ..run.config import TrainingConfig
from . import discriminators, objective, taught
from .perceptual import HEAD_LAYERS, PerceptualFeatures, memory_format

DISTILLED_FEATURES = 0.1
"""Of the distance of VGG-19's shallower features in the distillation loss, where T(x) has lines and D is projected."""


@dataclass(eq=False)
class Step:
    """`backward(batch, number, weights)`; G and S are `model`, `shipped` is what the style is made of.

    model, discriminator: as built; prepared_model, prepared_discriminator: as Accelerate wraps them. teacher: T of the
    distillation loss, where there is one.
    """

    config: TrainingConfig
    accelerator: Accelerator
    model: SDPGAN
    discriminator: nn.Module
    vgg: PerceptualFeatures
    prepared_model: nn.Module
    prepared_discriminator: nn.Module
    shipped: SDPGAN
    teacher: SDPGAN | None

    def __post_init__(self) -> None:
        self.memory_format = memory_format(self.accelerator.device)
        self.previous: dict[str, Tensor] = {}
        """The results and paintings of the last batch, where it was one of each."""

    def backward(self, batch: dict[str, Tensor], number: int, weights: dict[str, float]) -> dict[str, Tensor]:
        """The gradients of D (not in the initialisation phase) and of G and S, all at the present weights.

        number: of the step; weights: `Schedule.weights` of it. Returns the losses and what else tells how the run
        goes, detached.
        """
        config = self.config
        batch = batch | {"photo": batch["photo"].contiguous(memory_format=self.memory_format)}
        count = len(batch["photo"])
        losses: dict[str, Tensor] = {}
        numbers: dict[str, Tensor] = {}

        shift = torch.randint(1, 4, (2,)).tolist()  # rows and columns, 1 to 3 px
        repeats = max(1, count // 2)  # so many photos are painted twice, each in its turn, and so many paintings
        shifted = [(number * repeats + place) % count for place in range(repeats)]
        with self.accelerator.autocast():
            inputs = self.generator_inputs(batch, weights, shifted, *shift)
            outputs = self.prepared_model(*inputs)
        # Backpropagate each loss to G(x) and S(x) first and free that network's activations; then run one backward pass
        # through G and S with the summed gradients. Peak memory is that of the largest network, not of all.
        leaves = [None if output is None else output.detach().float().requires_grad_() for output in outputs]
        painted, saliency = leaves
        stylized, saliency = painted[:count], None if saliency is None else saliency[:count]

        taught_paintings, lines = self.taught(batch, inputs, saliency) if "distill" in weights else (None, None)
        real = batch["painting"]
        if config.distill_real and "gan" in weights:
            chosen = torch.rand(count, 1, 1, 1, device=real.device) < config.distill_real
            real = torch.where(chosen, taught_paintings, real)

        projected = config.discriminator == "projected" and "gan" in weights
        pyramids: dict[str, list[Tensor]] = {}
        with self.accelerator.autocast():
            with torch.no_grad():
                photo_features = self.vgg(batch["photo"]) if "con" in weights else None
                if projected:
                    pyramids["painting"] = discriminators.pyramids(self.vgg, real)
            pyramid = discriminators.pyramids(self.vgg, stylized) if projected else []
            if "con" in weights and not projected:
                pyramid = [self.vgg(stylized)]
        pyramids["generated"] = [layer.detach() for layer in pyramid]

        if "gan" in weights:
            loss, accuracies = self.discriminator_loss(
                batch | {"painting": real}, stylized.detach(), pyramids if projected else {}
            )
            self.accelerator.backward(loss)
            losses["discriminator"] = loss.detach()
            numbers |= accuracies

        terms = {}
        if photo_features is not None:
            mask = None
            if config.saliency_mask:
                mask = objective.saliency_mask(batch["reference"] if saliency is None else saliency, config.mask_peak)
                if "photo_box" in batch:
                    mask = crop_and_resize(mask, batch["photo_box"], *stylized.shape[-2:])
            features = pyramid[len(HEAD_LAYERS) - 1 if projected else 0]
            terms["con"] = objective.content_loss(features, photo_features, mask)
        if "gan" in weights:
            with self.accelerator.autocast():
                pixels, heads = call_with_constant_parameters(
                    self.discriminator, stylized, pyramid if projected else ()
                )
            fooled = [objective.generator_loss(one.float(), config.adversarial_loss) for one in (pixels, *heads)]
            terms["gan"] = with_heads(fooled)
        if "identity" in weights:
            terms["identity"] = objective.identity_loss(painted[count : count + repeats], batch["painting"][:repeats])
        if "shift" in weights:
            terms["shift"] = objective.shift_loss(painted[shifted], painted[-repeats:], *shift)
        if taught_paintings is not None:
            terms["distill"] = objective.distillation_loss(stylized, taught_paintings, lines)
            if lines is not None and projected:
                with self.accelerator.autocast(), torch.no_grad():
                    wanted = self.vgg.pyramid(taught_paintings)[:-1]
                features = objective.feature_distance(pyramid[: len(wanted)], wanted)
                terms["distill"] = terms["distill"] + DISTILLED_FEATURES * features
        self.backpropagate(terms, weights, losses)
        del terms, pyramid, pyramids
        self.backpropagate(self.saliency_terms(batch, stylized, saliency, weights), weights, losses)
        pairs = zip(outputs, leaves, strict=True)
        reached = [  # zeros too: processes wait for the gradients of every parameter
            (output, torch.zeros_like(output) if leaf.grad is None else leaf.grad.to(output.dtype))
            for output, leaf in pairs
            if leaf is not None and output.requires_grad
        ]
        torch.autograd.backward(*zip(*reached, strict=True))

        numbers |= self.spread("output", stylized.detach()) | self.spread("painting", batch["painting"])
        return {f"loss/{name}": loss for name, loss in losses.items()} | numbers

    @torch.no_grad()
    def taught(
        self, batch: dict[str, Tensor], inputs: list[Tensor | None], saliency: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What T paints of the photos, in other colours, lights and lines where `distill_*` say so.

        And, where it has lines, N x 1 x H x W, how much of a pixel is one of them, from 0 to 1.
        """
        assert self.teacher is not None
        config, photo = self.config, batch["photo"]
        looked_at: float | Tensor = 0.0
        if saliency is not None:
            looked_at = (saliency.float() + 1) / 2
            if "photo_box" in batch:
                looked_at = crop_and_resize(looked_at, batch["photo_box"], *photo.shape[-2:])
        seen, *others = (one if one is None else one[: len(photo)] for one in inputs)
        assert seen is not None
        if config.distill_plain:
            seen = taught.plain(seen, looked_at, config.distill_plain)
        with self.accelerator.autocast():
            painting = self.teacher(seen, *others)[0].float()
        salient, elsewhere = config.distill_chroma
        painting = objective.with_chroma(painting, elsewhere + (salient - elsewhere) * looked_at)
        for share, change in (
            (config.distill_color, taught.with_strong_colors),
            (config.distill_hue, taught.with_hues),
            (config.distill_light, taught.with_lights),
            (config.distill_dark, taught.with_dark_hues),
            (config.distill_flat, taught.flat),
        ):
            if share:
                painting = change(painting, photo, share)
        if any(config.distill_shade):
            painting = taught.with_shades(painting, config.distill_shade)
        lines = None
        if config.distill_ink:
            lines = config.distill_ink * taught.ink_lines(photo)
            if config.brush_size:  # a line that is painted over would get one on each side
                lines = lines * torch.maximum(batch["repainted"].view(-1, 1, 1, 1).float(), torch.as_tensor(looked_at))
            painting = taught.inked(painting, lines)
        return painting.clamp(-1, 1), lines

    def spread(self, kind: str, images: Tensor) -> dict[str, Tensor]:
        """Standard deviations over the pixels of an image, and over the images at one pixel."""
        numbers = {f"{kind}/contrast": images.std((2, 3)).mean()}
        if len(images) == 1:  # nothing in the batch to differ from: the one before it
            before = self.previous.get(kind)
            self.previous[kind] = images
            if before is not None and before.shape == images.shape:
                images = torch.cat([before, images])
        return numbers if len(images) == 1 else numbers | {f"{kind}/variety": images.std(0).mean()}

    def discriminator_loss(
        self, batch: dict[str, Tensor], generated: Tensor, pyramids: dict[str, list[Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What D minimises, and its accuracy on each kind of image; `pyramids` are what the heads judge."""
        loss = self.config.adversarial_loss
        kinds = ["painting", "edge_blurred"] if self.config.edge_blurred else ["painting"]
        images = [*(batch[kind] for kind in kinds), generated]
        features = [torch.cat(pair) for pair in zip(*pyramids.values(), strict=True)]
        with self.accelerator.autocast():
            pixels, heads = self.prepared_discriminator(torch.cat(images), features)
        kinds.append("generated")
        judged = [dict(zip(kinds, pixels.float().chunk(len(kinds)), strict=True))]
        judged += [dict(zip(pyramids, head.float().chunk(2), strict=True)) for head in heads]
        each = [
            objective.discriminator_loss(one["painting"], one.get("edge_blurred"), one["generated"], loss)
            for one in judged
        ]
        accuracies = {}
        for kind in kinds:
            right = [objective.accuracy(one[kind].detach(), kind == "painting") for one in judged if kind in one]
            accuracies[f"discriminator_accuracy/{kind}"] = sum(right) / len(right)
        return with_heads(each), accuracies

    def generator_inputs(
        self, batch: dict[str, Tensor], weights: dict[str, float], shifted: list[int], rows: int, columns: int
    ) -> list[Tensor | None]:
        """What G paints in a step: the photos, then, where their terms are there, paintings and photos once more.

        `shifted` are the numbers of those photos, which start `rows` and `columns` px further; there are as many
        paintings. Returns the arguments of `SDPGAN.forward`.
        """
        repeats = len(shifted)
        photos = self.over_smaller_paintings(batch) if self.config.brush_size else batch["photo"]
        whole, boxes = batch.get("photo_whole"), batch.get("photo_box")
        crops, wholes, places = [photos], [whole], [boxes]
        starts = torch.randint(NOISE_PERIOD, (len(photos), 2))
        noise_starts = [starts]
        if "identity" in weights:
            crops.append(objective.with_chroma(batch["painting"][:repeats], self.config.identity_chroma))
            wholes.append(batch["painting_whole"][:repeats] if whole is not None else None)
            places.append(batch["painting_box"][:repeats] if whole is not None else None)
            noise_starts.append(torch.randint(NOISE_PERIOD, (repeats, 2)))
        if "shift" in weights:
            crops.append(F.pad(photos[shifted, :, rows:, columns:], (0, columns, 0, rows), mode="reflect"))
            noise_starts.append(starts[shifted] + torch.tensor([rows, columns]) + torch.randint(-1, 2, (repeats, 2)))
            if whole is not None:
                height, width = photos.shape[-2:]
                further = boxes.new_tensor([rows / height, columns / width, 0, 0]) * boxes[shifted][:, [2, 3, 2, 3]]
                wholes.append(whole[shifted])
                places.append(boxes[shifted] + further)
        joined = [None if parts[0] is None else torch.cat(parts) for parts in (crops, wholes, places, noise_starts)]
        joined[0] = joined[0].contiguous(memory_format=self.memory_format)
        return joined

    @torch.no_grad()
    def over_smaller_paintings(self, batch: dict[str, Tensor]) -> Tensor:
        """The photos; those `repainted` as G sees them at the second size of `filters.coarse_to_fine`."""
        chosen, photos = batch["repainted"], batch["photo"].clone()
        if not chosen.any():
            return photos
        crops, whole, boxes = (batch[key][chosen] for key in ("photo", "photo_whole", "photo_box"))
        height, width = (4 * round(side / 8) for side in crops.shape[-2:])
        with self.accelerator.autocast():
            painting, saliency = self.shipped(resized(crops, height, width), whole, boxes)
        if saliency is not None:
            saliency = crop_and_resize(saliency, boxes, *crops.shape[-2:])
        photos[chosen] = underpainted(painting.float(), crops, saliency, self.config.clear_lines[0])
        return photos

    def backpropagate(self, terms: dict[str, Tensor], weights: dict[str, float], losses: dict[str, Tensor]) -> None:
        """The gradients of the weighted terms at the leaves; notes the terms in `losses`."""
        if terms:
            self.accelerator.backward(sum(weights[name] * term for name, term in terms.items()))
            losses |= {name: term.detach() for name, term in terms.items()}

    def saliency_terms(
        self, batch: dict[str, Tensor], stylized: Tensor, saliency: Tensor | None, weights: dict[str, float]
    ) -> dict[str, Tensor]:
        """Eq. 6, for which the parameters of S are constants and the stylised image is not, and Eq. 7."""
        terms = {}
        if "con_s" in weights:
            seen = stylized
            if "photo_box" in batch:
                seen = pasted(stylized, batch["photo_whole"], batch["photo_box"])
            with self.accelerator.autocast():
                stylized_saliency = call_with_constant_parameters(self.model.saliency_network, seen)[0]
            terms["con_s"] = objective.saliency_content_loss(saliency, stylized_saliency)
        if "sali" in weights:
            terms["sali"] = objective.saliency_loss(saliency, batch["reference"])
        return terms


def with_heads(losses: list[Tensor]) -> Tensor:
    """The loss on pixels, and the mean of those of the heads times the number of scales."""
    return losses[0] + discriminators.SCALES * sum(losses[1:]) / max(1, len(losses) - 1)


def call_with_constant_parameters(module: nn.Module, *inputs: Tensor):
    """`module(*inputs)` whose gradient reaches the inputs and not the parameters."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, parameters, inputs)


def pasted(crops: Tensor, whole: Tensor, boxes: Tensor) -> Tensor:
    """Copies of whole photos, N x 3 x s x s, with what was painted of a crop in its place: what S sees for Eq. 6.

    crops: N x 3 x H x W; boxes: N x 4, top, left, height and width of the crops as shares of the photos'.
    """
    results, size = [], whole.shape[-1]
    for crop, copy_, box in zip(crops, whole, boxes.tolist(), strict=True):
        top, left = (min(size - 1, round(size * start)) for start in box[:2])
        height, width = (
            max(1, min(size - start, round(size * side))) for start, side in zip((top, left), box[2:], strict=True)
        )
        inside = torch.zeros_like(copy_[:1])
        inside[:, top : top + height, left : left + width] = 1
        margins = (left, size - left - width, top, size - top - height)
        placed = F.pad(resized(crop[None], height, width)[0], margins)
        results.append(copy_ * (1 - inside) + placed)
    return torch.stack(results)
