"""The networks are those of Fig. 2, and each departure from it is what it says."""

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from assertions import refusal
from torch import nn

from sdpgan_hub import networks
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.networks import (
    MIN_SIZE,
    SIZE_MULTIPLE,
    UPSAMPLING,
    BilinearConvolution,
    Blur,
    Discriminator,
    Down,
    Generator,
    OutputConvolution,
    PixelNorm,
    SaliencyNetwork,
)


def layers(network: nn.Module) -> list[str]:
    """Every convolution in the paper's notation, in order: k(ernel) n(umber of maps) s(tride); t for transposed."""
    return [
        f"{'t' if isinstance(m, nn.ConvTranspose2d) else ''}k{m.kernel_size[0]}n{m.out_channels}s{m.stride[0]}"
        for m in network.modules()
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
    ]


def image(height: int = 32, width: int = 48, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def without_norms(network: nn.Module) -> nn.Module:
    """The network with its norms, whose statistics see the whole image, replaced by nothing."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda x: x
    return network


def view(network: nn.Module, side: int) -> int:
    """The side in pixels of the largest patch that reaches one output, if no ReLU shuts a way there."""
    network = without_norms(network).double()
    for parameter in network.parameters():
        parameter.data = parameter.data.abs() * 0.1 if parameter.ndim > 1 else torch.zeros_like(parameter)
    x = (image(side, side, 1).double() + 1).requires_grad_()
    y = network.logits(network.encode(x)) if isinstance(network, SaliencyNetwork) else network(x)
    sides, middle = [], y.shape[2] // 2
    for place in range(middle, middle + SIZE_MULTIPLE):
        (gradient,) = torch.autograd.grad(y[0, 0, place, middle], x, retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        assert 0 < rows[0] and rows[-1] < side - 1, "the patch is cut off by the border"
        sides.append(int(rows[-1] - rows[0] + 1))
    return max(sides)


# Fig. 2


def test_the_layers_are_those_of_figure_2():
    encoder = ["k7n64s1", "k3n128s2", "k3n256s2"]
    decoder = ["tk3n128s2", "tk3n64s2"]
    assert layers(Generator()) == [*encoder, "k1n256s1", *["k3n256s1"] * 16, *decoder, "k7n3s1"]
    assert layers(SaliencyNetwork()) == [*encoder, *decoder, "k7n1s1"]
    assert layers(Discriminator()) == ["k3n32s1", "k3n64s2", "k3n128s2", "k3n256s1", "k3n1s1"]


@pytest.mark.parametrize(
    ("network", "count"), [(SaliencyNetwork, 749_825), (Generator, 10_693_251), (Discriminator, 390_337)]
)
def test_the_parameters_are_as_many_as_these_layers_and_their_biases_have(network: type, count: int):
    assert sum(parameter.numel() for parameter in network().parameters()) == count


def test_every_convolution_of_the_defaults_is_followed_by_instance_norm_as_the_paper_says():
    for network, norms in ((Generator(2, 3), 3 + 2 * 3 + 2), (SaliencyNetwork(2), 3 + 2)):
        kinds = [type(module) for module in network.modules()]
        groups = [m.num_groups == m.num_channels for m in network.modules() if isinstance(m, nn.GroupNorm)]
        assert groups == [True] * norms
        assert PixelNorm not in kinds and Blur not in kinds


@pytest.mark.parametrize("options", [{}, {"antialiasing": True, "upsampling": "bilinear"}])
def test_outputs_have_the_size_of_the_input_and_lie_in_minus_one_to_one(options: dict):
    saliency_network = SaliencyNetwork(4, context_blocks=2 if options else 0, **options)
    generator = Generator(4, 1, normalization="pixel" if options else "instance", **options)
    saliency, features = saliency_network(image())
    stylized = generator(image(), features)
    assert [tuple(f.shape) for f in features] == [(2, 4, 32, 48), (2, 8, 16, 24), (2, 16, 8, 12)]
    assert saliency.shape == (2, 1, 32, 48) and stylized.shape == (2, 3, 32, 48)
    assert max(saliency.abs().max(), stylized.abs().max()) <= 1
    assert Discriminator(4)(image()).shape == (2, 1, 8, 12)


def test_the_discriminator_sees_patches_of_its_stated_receptive_field():
    assert view(Discriminator(2), 64) == Discriminator.RECEPTIVE_FIELD == 25


def test_the_saliency_features_change_the_painting_at_every_level():
    generator, features = Generator(4, 1), SaliencyNetwork(4).encode(image())
    painted = generator(image(), features)
    for level in range(3):
        changed = [f.flip(-1) if i == level else f for i, f in enumerate(features)]
        assert (generator(image(), changed) - painted).abs().max() > 1e-4
    assert Generator(4, 1, feature_concatenation=False)(image()).shape == painted.shape


@torch.no_grad()
def test_features_of_a_smaller_copy_are_enlarged_bilinearly():
    generator, features = Generator(4, 1), SaliencyNetwork(4).encode(image(16, 24))
    enlarged = [F.interpolate(f, scale_factor=2, mode="bilinear") for f in features]
    torch.testing.assert_close(generator(image(), features), generator(image(), enlarged))


def test_gradients_of_the_painting_reach_the_saliency_encoder_and_not_its_decoder():
    saliency_network, generator = SaliencyNetwork(4), Generator(4, 1)
    _, features = saliency_network(image())
    generator(image(), features).sum().backward()
    assert saliency_network.down1[0].weight.grad.abs().sum() > 0
    assert saliency_network.output[0].weight.grad is None


def test_a_generator_without_the_features_that_it_was_built_for_says_so():
    refusal(lambda: Generator(2, 0)(image()), "feature_concatenation")


# layers


@pytest.mark.parametrize("maps", [1, 3])
def test_the_output_convolution_is_a_reflection_padded_k7_convolution(maps: int):
    torch.manual_seed(0)
    layer, x = OutputConvolution(2, maps).double(), torch.randn(2, 2, 9, 5).double()
    expected = F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    rounded = layer.bfloat16()(x.bfloat16()).double()  # which takes another way
    assert 0 < (rounded - expected).abs().max() < 0.02


@pytest.mark.parametrize("antialiasing", [False, True])
@pytest.mark.parametrize("normalization", ["instance", "pixel"])
@torch.no_grad()
def test_down_takes_two_maps_as_if_they_were_concatenated(normalization: str, antialiasing: bool):
    torch.manual_seed(0)
    layer = Down(5, 4, 3, 2, normalization, antialiasing).double()
    x, joined = torch.randn(2, 2, 9, 12).double(), torch.randn(2, 3, 9, 12).double()
    torch.testing.assert_close(layer(x, joined), nn.Sequential.forward(layer, torch.cat([x, joined], dim=1)))


@pytest.mark.parametrize("bias", [False, True])
def test_bilinear_convolution_is_bilinear_resizing_and_a_replication_padded_convolution(bias: bool):
    layer = BilinearConvolution(3, 5, bias).double()
    for height, width in ((1, 1), (1, 4), (5, 3)):
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        resized = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        padded = F.pad(resized, (1, 1, 1, 1), mode="replicate")
        torch.testing.assert_close(layer(x), F.conv2d(padded, layer.weight, layer.bias))
    assert layer.state_dict().keys() == ({"weight", "bias"} if bias else {"weight"})


@torch.no_grad()
def test_a_bilinear_generator_paints_a_flat_image_flat_and_a_transposed_one_cannot():
    # the grid that up-sampling leaves where the photo has nothing to paint; the border pads, so the inside counts
    patterns = {}
    for upsampling in UPSAMPLING:
        torch.manual_seed(0)
        generator = without_norms(Generator(4, 1, upsampling, feature_concatenation=False))
        inside = generator(torch.full((1, 3, 64, 64), 0.3))[..., 24:40, 24:40]
        patterns[upsampling] = float(inside.std((2, 3)).max())
    assert patterns["bilinear"] < 1e-6 < 1e-4 < patterns["transposed"]


@torch.no_grad()
def test_the_norm_is_instance_norm_and_in_float32_under_autocast():
    x = torch.randn(2, 5, 6, 7) * 3 + 1
    norm = next(m for m in SaliencyNetwork(5).modules() if isinstance(m, nn.GroupNorm))
    torch.testing.assert_close(norm(x), nn.InstanceNorm2d(5)(x))
    assert not list(norm.parameters())
    x = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(x), nn.InstanceNorm2d(5)(x.float()).bfloat16())


def test_pixel_norm_divides_each_pixel_by_the_root_mean_square_of_its_channels():
    x = torch.randn(2, 5, 4, 3) * 3 + 1
    values = x.numpy()
    expected = values / np.sqrt((values**2).mean(1, keepdims=True))
    np.testing.assert_allclose(PixelNorm()(x).numpy(), expected, rtol=1e-5)
    assert torch.equal(PixelNorm()(torch.zeros(1, 4, 2, 2)), torch.zeros(1, 4, 2, 2))


def test_bf16_is_for_convolutions_after_the_last_concatenation(monkeypatch):
    monkeypatch.setattr(networks, "has_amx", lambda: True)
    model = Generator(4, 2, "bilinear", feature_concatenation=False, normalization="pixel").eval()
    assert model.bf16
    outputs: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda module, inputs, output, name=name: outputs.update({name: output.dtype}))
    with torch.no_grad():
        painting = model(image())
    rounded = {name for name, dtype in outputs.items() if dtype == torch.bfloat16}
    sums = {name for name in outputs if name.startswith("residual") and name.count(".") < 2}
    assert rounded == {name for name in outputs if name.startswith(("residual", "up", "output.0"))} - sums
    model.bf16 = False
    with torch.no_grad():
        exact = model(image())
    assert 0 < (painting - exact).abs().max() < 2 / 127.5


@pytest.mark.parametrize("where", ["gradients", "training", "float64"])
def test_bf16_leaves_training_and_other_precisions_alone(where: str):
    model = Generator(4, 1, feature_concatenation=False).train(where == "training")
    x = image()
    if where == "float64":
        model, x = model.double(), x.double()
    with torch.set_grad_enabled(where == "gradients"):
        model.bf16 = False
        expected = model(x)
        model.bf16 = True
        assert torch.equal(model(x), expected)


# departures from the paper


def test_blur_is_the_binomial_filter_mirrored_at_the_border():
    x = image(11, 7)
    taps = np.array([1, 4, 6, 4, 1]) / 16
    expected = x.numpy()
    for axis in (2, 3):
        expected = scipy.ndimage.convolve1d(expected, taps, axis, mode="mirror")
    np.testing.assert_allclose(Blur()(x).numpy(), expected, atol=1e-6)
    assert not list(Blur().parameters())
    wider = np.pad(expected, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    np.testing.assert_allclose(Blur(1)(x).numpy(), wider, atol=1e-6)


@torch.no_grad()
def test_antialiasing_keeps_the_finest_pattern_out_of_a_map_of_half_the_size():
    # columns +1 -1 +1 -1: every second one, all that a stride of 2 looks at, is a constant of that sign
    stripes = torch.tensor([1.0, -1.0]).repeat(16).expand(1, 2, 32, 32)
    seen = {}
    for antialiasing in (False, True):
        torch.manual_seed(0)
        down = without_norms(Down(2, 8, 3, 2, antialiasing=antialiasing))
        constant = down(torch.ones(1, 2, 32, 32))[..., 4:-4, 4:-4].abs().max()
        seen[antialiasing] = float(down(stripes)[..., 4:-4, 4:-4].abs().max() / constant)
    assert seen[False] > 0.1 and seen[True] < 1e-5


@pytest.mark.parametrize(("options", "filters"), [({}, 0), ({"antialiasing": True}, 2)])
def test_antialiasing_filters_before_each_convolution_of_stride_2_and_nowhere_else(options: dict, filters: int):
    for network in (SaliencyNetwork(2, **options), Generator(2, 1, **options)):
        modules = list(network.modules())
        before = [modules[place + 1] for place, module in enumerate(modules) if isinstance(module, Blur)]
        assert [convolution.stride for convolution in before] == [(2, 2)] * filters


def test_without_norms_a_pixel_generator_keeps_the_size_of_its_features():
    # first weights: neither dead nor saturated behind any number of residual blocks
    torch.manual_seed(0)
    generator = Generator(8, 12, feature_concatenation=False, normalization="pixel")
    sizes = []
    for module in (generator.down1, generator.down3, generator.residual, generator.up):
        module.register_forward_hook(lambda _, inputs, output: sizes.append(output.detach().square().mean().sqrt()))
    painting = generator(image(64, 64))
    assert all(0.2 < size < 5 for size in sizes)
    assert sizes[2] < 1.5 * sizes[1]  # residuals start small
    assert painting.abs().mean() < 0.9


@torch.no_grad()
def test_a_pixel_generator_knows_how_dark_a_photo_is_and_an_instance_generator_does_not():
    change = {}
    for normalization in ("instance", "pixel"):
        torch.manual_seed(0)
        generator = Generator(4, 1, feature_concatenation=False, normalization=normalization)
        photo = image(32, 32, 1)
        change[normalization] = float((generator(photo) - generator(0.25 * photo - 0.7)).abs().mean())
    assert change["instance"] < 0.02 and change["pixel"] > 5 * change["instance"]


def test_context_blocks_widen_the_view_of_s_by_eight_times_their_dilations():
    assert view(SaliencyNetwork(2), 96) == 25
    assert view(SaliencyNetwork(2, context_blocks=2), 96) == 25 + 8 * (1 + 2)
    assert view(SaliencyNetwork(2, context_blocks=5), 320) == 25 + 8 * (1 + 2 + 4 + 8 + 16)


# what cannot be built or run


@pytest.mark.parametrize(("height", "width", "padded"), [(33, 32, "36 x 32"), (1, 1, "16 x 16"), (32, 50, "32 x 52")])
def test_a_size_that_does_not_fit_is_refused_with_the_size_to_pad_to(height: int, width: int, padded: str):
    for network in (SaliencyNetwork(2), Discriminator(2)):
        with pytest.raises(SDPGANError, match=padded):
            network(image(height, width))


@pytest.mark.parametrize(
    ("network", "argument", "value"),
    [
        (Generator, "base_channels", 0),
        (Generator, "base_channels", 1.5),
        (Generator, "residual_blocks", -1),
        (Generator, "upsampling", "bicubic"),
        (Generator, "normalization", "batch"),
        (SaliencyNetwork, "context_blocks", -1),
        (SaliencyNetwork, "context_blocks", True),
        (SaliencyNetwork, "upsampling", "resize"),
    ],
)
def test_an_impossible_layout_is_refused_by_name_and_value(network: type, argument: str, value: object):
    refusal(lambda: network(**{argument: value}), argument, repr(value))


def test_the_smallest_image_passes():
    smallest = image(MIN_SIZE, MIN_SIZE)
    for options in ({}, {"antialiasing": True, "upsampling": "bilinear"}):
        features = SaliencyNetwork(2, context_blocks=5, **options).encode(smallest)
        assert Generator(2, 1, **options)(smallest, features).shape[-1] == MIN_SIZE
    assert MIN_SIZE % SIZE_MULTIPLE == 0
