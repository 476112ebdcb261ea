"""The networks are those of Fig. 2."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.networks import (
    MIN_SIZE,
    SIZE_MULTIPLE,
    UPSAMPLING,
    BilinearConvolution,
    Discriminator,
    Generator,
    JoiningConvolution,
    OutputConvolution,
    ResizeConvolution,
    SaliencyNetwork,
)


def layers(network: nn.Module) -> list[str]:
    """Every convolution in the paper's notation, in order: k(ernel) n(umber of maps) s(tride); t for transposed."""
    return [
        f"{'t' if isinstance(m, nn.ConvTranspose2d) else ''}k{m.kernel_size[0]}n{m.out_channels}s{m.stride[0]}"
        for m in network.modules()
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
    ]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def image(height: int = 32, width: int = 48, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_layers_are_those_of_figure_2():
    encoder = ["k7n64s1", "k3n128s2", "k3n256s2"]
    decoder = ["tk3n128s2", "tk3n64s2"]
    assert layers(Generator()) == [*encoder, "k1n256s1", *["k3n256s1"] * 16, *decoder, "k7n3s1"]
    assert layers(SaliencyNetwork()) == [*encoder, *decoder, "k7n1s1"]
    assert layers(Discriminator()) == ["k3n32s1", "k3n64s2", "k3n128s2", "k3n256s1", "k3n1s1"]


def test_parameter_counts_follow_from_the_layers():
    c = 64
    encoder = 3 * c * 49 + c * 2 * c * 9 + 2 * c * 4 * c * 9
    decoder = 4 * c * 2 * c * 9 + 2 * c * c * 9
    saliency = encoder + decoder + c * 49 + 1
    joined = encoder + c * 2 * c * 9 + 2 * c * 4 * c * 9 + (8 * c * 4 * c + 4 * c)
    generator = joined + 16 * (4 * c) ** 2 * 9 + decoder + 3 * c * 49 + 3
    assert parameters(SaliencyNetwork()) == saliency == 749_825
    assert parameters(Generator()) == generator == 10_693_251
    assert parameters(SaliencyNetwork()) / parameters(Generator()) == pytest.approx(0.0701, abs=1e-4)
    assert parameters(Discriminator()) == 390_337


@pytest.mark.parametrize("upsampling", UPSAMPLING)
def test_outputs_have_the_size_of_the_input_and_lie_in_minus_one_to_one(upsampling: str):
    saliency_network, generator = SaliencyNetwork(4, upsampling), Generator(4, 1, upsampling)
    saliency, features = saliency_network(image())
    stylized = generator(image(), features)
    assert [tuple(f.shape) for f in features] == [(2, 4, 32, 48), (2, 8, 16, 24), (2, 16, 8, 12)]
    assert saliency.shape == (2, 1, 32, 48) and stylized.shape == (2, 3, 32, 48)
    assert max(saliency.abs().max(), stylized.abs().max()) <= 1
    assert Discriminator(4)(image()).shape == (2, 1, 8, 12)


@torch.no_grad()
def test_the_discriminator_sees_patches_of_its_stated_receptive_field():
    # a change in the input reaches a logit exactly if it lies in its patch; instance norm is global: left out
    network = Discriminator(2).double()
    network.layers = nn.Sequential(*(m for m in network.layers if not isinstance(m, nn.GroupNorm)))
    x = image(64, 64, 1).double().requires_grad_()
    with torch.enable_grad():
        network(x)[0, 0, 8, 8].backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == Discriminator.RECEPTIVE_FIELD == 25


def test_the_saliency_features_change_the_painting_at_every_level():
    generator, features = Generator(4, 1), SaliencyNetwork(4).encode(image())
    painted = generator(image(), features)
    for level in range(3):
        changed = [f.flip(-1) if i == level else f for i, f in enumerate(features)]
        assert (generator(image(), changed) - painted).abs().max() > 1e-4
    assert Generator(4, 1, feature_concatenation=False)(image()).shape == painted.shape


def test_gradients_of_the_painting_reach_the_saliency_encoder_and_not_its_decoder():
    saliency_network, generator = SaliencyNetwork(4), Generator(4, 1)
    _, features = saliency_network(image())
    generator(image(), features).sum().backward()
    assert saliency_network.down1[0].weight.grad.abs().sum() > 0
    assert saliency_network.output[0].weight.grad is None


def test_a_joining_convolution_is_the_convolution_of_the_concatenated_maps():
    torch.manual_seed(0)
    layer = JoiningConvolution(5, 4, 3, 2, bias=True).double()
    first, second = torch.randn(2, 2, 8, 6).double(), torch.randn(2, 3, 8, 6).double()
    padded = F.pad(torch.cat([first, second], 1), (1, 1, 1, 1), mode="reflect")
    expected = F.conv2d(padded, layer.weight, layer.bias, stride=2)
    torch.testing.assert_close(layer(first, second), expected)


@pytest.mark.parametrize("maps", [1, 3])
def test_the_output_convolution_is_a_reflection_padded_k7_convolution(maps):
    torch.manual_seed(0)
    layer, x = OutputConvolution(2, maps).double(), torch.randn(2, 2, 9, 5).double()
    expected = F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)


def test_resize_convolution_is_nearest_resizing_and_a_reflection_padded_convolution():
    layer = ResizeConvolution(3, 5).double()
    for height, width in ((1, 1), (1, 4), (5, 3)):
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        resized = nn.functional.pad(nn.functional.interpolate(x, scale_factor=2.0), (1, 1, 1, 1), mode="reflect")
        torch.testing.assert_close(layer(x), nn.functional.conv2d(resized, layer.weight))
    assert layer.state_dict().keys() == {"weight"}


def test_bilinear_convolution_is_bilinear_resizing_and_a_replication_padded_convolution():
    layer = BilinearConvolution(3, 5).double()
    for height, width in ((1, 1), (1, 4), (5, 3)):
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        resized = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        padded = nn.functional.pad(resized, (1, 1, 1, 1), mode="replicate")
        torch.testing.assert_close(layer(x), nn.functional.conv2d(padded, layer.weight))
    assert layer.state_dict().keys() == {"weight"}


@torch.no_grad()
def test_a_bilinear_generator_paints_a_flat_image_flat_and_a_transposed_one_cannot():
    # the grid that up-sampling leaves where the photo has nothing to paint; the border pads, so the inside counts
    patterns = {}
    for upsampling in UPSAMPLING:
        torch.manual_seed(0)
        generator = Generator(4, 1, upsampling, feature_concatenation=False)
        for module in generator.modules():  # of a constant image instance norm leaves nothing: shift what it divides
            if isinstance(module, nn.GroupNorm):
                module.forward = lambda x: x + 0.1
        inside = generator(torch.full((1, 3, 64, 64), 0.3))[..., 24:40, 24:40]
        patterns[upsampling] = float(inside.std((2, 3)).max())
    assert patterns["bilinear"] < 1e-6 and patterns["resize"] < 1e-6 < patterns["transposed"]


@torch.no_grad()
def test_the_norm_is_in_float32_under_autocast():
    x = torch.randn(2, 5, 16, 16).bfloat16()
    norm = next(m for m in SaliencyNetwork(5).modules() if isinstance(m, nn.GroupNorm))
    with torch.autocast("cpu", torch.bfloat16):
        normalized = norm(x)
    assert normalized.dtype == torch.bfloat16
    torch.testing.assert_close(normalized, nn.InstanceNorm2d(5)(x.float()).bfloat16(), rtol=0, atol=0)


def test_the_norm_is_instance_norm():
    x = torch.randn(2, 5, 6, 7) * 3 + 1
    norm = next(m for m in SaliencyNetwork(5).modules() if isinstance(m, nn.GroupNorm))
    torch.testing.assert_close(norm(x), nn.InstanceNorm2d(5)(x))
    assert not list(norm.parameters())


@pytest.mark.parametrize(("height", "width", "padded"), [(33, 32, "36 x 32"), (1, 1, "16 x 16"), (32, 50, "32 x 52")])
def test_a_size_that_does_not_fit_is_refused_with_the_size_to_pad_to(height: int, width: int, padded: str):
    for network in (SaliencyNetwork(2), Discriminator(2)):
        with pytest.raises(SDPGANError, match=f"pad it to {padded}"):
            network(image(height, width))


@pytest.mark.parametrize(
    "arguments", [{"base_channels": 0}, {"base_channels": 1.5}, {"residual_blocks": -1}, {"upsampling": "bicubic"}]
)
def test_an_impossible_layout_is_refused_by_name(arguments: dict):
    with pytest.raises(SDPGANError, match=next(iter(arguments))):
        Generator(**arguments)


def test_the_smallest_image_passes():
    assert (
        Generator(2, 1)(image(MIN_SIZE, MIN_SIZE), SaliencyNetwork(2).encode(image(MIN_SIZE, MIN_SIZE))).shape[-1] == 16
    )
    assert MIN_SIZE % SIZE_MULTIPLE == 0
