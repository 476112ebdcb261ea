"""The model people load, use and share: S and G of SDP-GAN (Li et al., IEEE TIP 2021, Fig. 2) as one Hub model."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import HfApi, ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from . import card, checkpoint, filters, pipeline, styles
from .errors import SDPGANError
from .imaging import ImageLike
from .networks import MIN_SIZE, SIZE_MULTIPLE, Generator, SaliencyFeatures, SaliencyNetwork, check_size

if TYPE_CHECKING:
    from .scene import Scene

PAPER_URL = "https://doi.org/10.1109/TIP.2020.3036754"
HUB_METADATA = {
    "library_name": "sdpgan_hub",
    "pipeline_tag": "image-to-image",
    "license": "apache-2.0",
    "tags": ["model_hub_mixin", "pytorch_model_hub_mixin", "saliency", "sdp-gan", "style-transfer"],
}
"""The front matter of every model's card."""
CLEAR_LINES = (0, *range(3, 16, 2))
"""The values of each of `clear_lines`."""
MOST_SHOCKS = 16
"""Steps of `shock_filter`: tiles overlap by what all of them reach."""
FIRST_ARGUMENTS = ("base_channels", "residual_blocks", "upsampling", "feature_concatenation")
"""What every config.json has. A key that came later and is left out means its default here: the paper."""


class SDPGAN(nn.Module, PyTorchModelHubMixin):
    """A saliency network S and a generator G that paints a photo with S's features.

        >>> model = SDPGAN.from_pretrained("vangogh")  # doctest: +SKIP
        >>> painting = model.stylize("photo.jpg")  # doctest: +SKIP

    The defaults are the paper's. What departs from it is in training/README.md, "Departures from the paper".

    Args:
        base_channels: feature maps at full resolution; 64 in the paper.
        residual_blocks: of G; 8 in the paper.
        upsampling: "transposed" (the paper) or "bilinear".
        feature_concatenation: False leaves S's features out of G (an ablation, Fig. 11 (b)).
        saliency_network: False leaves S out (an ablation, Fig. 9 (c)); such a model paints and has no saliency maps.
        context_blocks: of S, between its encoder and decoder; 0 in the paper.
        saliency_size: S sees a square copy of the photo of this many pixels, so that its map does not depend on the
            photo's size; 0 (the paper): the photo as it is.
        normalization: of G, "instance" (the paper) or "pixel".
        antialiasing: a binomial filter before every convolution of stride 2.
        noise: amplitude of the smooth noise that G paints flat areas from (`filters.smooth_noise`); 0 in the paper.
        brush_size: the shorter side, in pixels, at which larger photos are painted first, with strokes that are broad
            in the end; from there they are painted coarse to fine (`filters.coarse_to_fine`, `filters.underpainted`,
            `filters.refined`), mirrored beyond their border (`filters.MARGIN_SHARE`), which keeps it free of fringes.
            0 (the paper): once, at their own size.
        clear_lines: two widths in pixels, each 0 (off) or odd from 3 to 15, for the second size and for later ones.
            Dark lines and dots that are narrower, which a smaller painting added to the photo, are filled in before it
            is painted over (`filters.without_lines`).
        clear_grain: height, 0 (off) to 1 in units of [-1, 1], of the fine structure that paintings over a smaller one
            are rid of (`filters.without_grain`), at the last size and from `filters.VIEWED_SIZE` on.
        shock_filter: steps, 0 (off) to 16, of a filter that makes the contours of finished paintings crisp
            (`filters.crisp`), at the last size and from `filters.VIEWED_SIZE` on. With a `keep_detail` above
            0.5 it leaves what people look at more and more as it is, and with 1 entirely.
        keep_detail: the share, 0 to 1, of the photo's fine structure that paintings have where S is highest
            (`filters.keep_detail`), in larger photos at each size from `filters.VIEWED_SIZE` on; 0 in the paper.

    Raises:
        SDPGANError: an argument is out of its range, or needs the saliency network that is left out.

    Attributes:
        saliency_network: S, a `SaliencyNetwork`; None where it is left out.
        generator: G, a `Generator`.
        config: the arguments above; what config.json holds.
        source: where `from_pretrained` found it (`sdpgan_hub.styles.Source`); None for a new model.
    """

    def __init__(
        self,
        base_channels: int = 64,
        residual_blocks: int = 8,
        upsampling: str = "transposed",
        feature_concatenation: bool = True,
        saliency_network: bool = True,
        context_blocks: int = 0,
        saliency_size: int = 0,
        normalization: str = "instance",
        antialiasing: bool = False,
        noise: float = 0.0,
        brush_size: int = 0,
        clear_lines: Sequence[int] = (0, 0),
        clear_grain: float = 0.0,
        shock_filter: int = 0,
        keep_detail: float = 0.0,
    ):
        arguments = dict(locals())
        del arguments["self"], arguments["__class__"]
        super().__init__()
        if feature_concatenation and not saliency_network:
            raise SDPGANError(
                "feature_concatenation needs the saliency network; set it to False, or saliency_network True."
            )
        _check_keep_detail(keep_detail, saliency_network)
        _check_size("saliency_size", saliency_size)
        _check_size("brush_size", brush_size)
        _check_clear_lines(clear_lines)
        if not pipeline.is_number(noise) or noise < 0:
            raise SDPGANError(f"noise is {noise!r}; give a number from 0 (none) up.")
        if not pipeline.is_number(clear_grain) or not 0 <= clear_grain <= 1:
            raise SDPGANError(f"clear_grain is {clear_grain!r}; give a number from 0 (none) to 1.")
        if type(shock_filter) is not int or not 0 <= shock_filter <= MOST_SHOCKS:
            raise SDPGANError(
                f"shock_filter is {shock_filter!r}; give a number of steps from 0 (none) to {MOST_SHOCKS}."
            )
        self.config: dict[str, Any] = arguments | {
            "noise": float(noise), "clear_lines": list(clear_lines), "clear_grain": float(clear_grain),
            "keep_detail": float(keep_detail),
        }  # fmt: skip
        self.saliency_network = (
            SaliencyNetwork(base_channels, upsampling, context_blocks, antialiasing) if saliency_network else None
        )
        self.generator = Generator(
            base_channels, residual_blocks, upsampling, feature_concatenation, normalization, antialiasing
        )
        self.source: styles.Source | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(
        self, x: Tensor, whole: Tensor | None = None, boxes: Tensor | None = None, noise_starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Photos to paintings and their saliency maps; crops of photos are painted once, as they are.

        Args:
            x: N x 3 x H x W, RGB in [-1, 1]; H and W multiples of 4, at least 16.
            whole: where x are crops, copies of the whole photos for S, N x 3 x `saliency_size` x `saliency_size`.
            boxes: with `whole`, where the crops lie, N x 4: top, left, height and width as shares of the photo's.
            noise_starts: where the noise of each starts, N x 2, row and column; by default at its first pixel. Whole
                photos have it where `filters.noise_origin` says, with a saliency_size.

        Returns:
            The paintings, N x 3 x H x W in [-1, 1], and the maps, N x 1 x H x W in [-1, 1]; None for the maps where S
            is left out. With `whole`, the maps are those of the whole photos, at the size of the copies.
        """
        if whole is None:
            check_size(x)
            results: list[Any] = []
            painter = pipeline.Painter(self, pipeline.Photo(x, signed=True))
            options = pipeline.Options(saliency=self.saliency_network is not None, tile=None)
            painter.paint(lambda *parts: results.append(parts), options)
            _, painting, saliency = results[0]
            return painting, saliency
        if self.saliency_network is None:
            return self.generate(x, None, noise_starts), None
        assert boxes is not None
        saliency, features = self.saliency_network(whole)
        height, width = x.shape[-2:]
        cropped = tuple(
            filters.crop_and_resize(feature, boxes, height >> level, width >> level)
            for level, feature in enumerate(features)
        )
        return self.generate(x, cropped, noise_starts), saliency

    def generate(self, x: Tensor, features: SaliencyFeatures | None, noise_starts: Tensor | None = None) -> Tensor:
        """G of photos or parts of them, with noise and S's features, once and as they are.

        Args:
            x: as for `forward`.
            features: those of `SaliencyNetwork.encode`, of x or a smaller copy; None for a model that takes none.
            noise_starts: as for `forward`; one row for all of x, or one for each.

        Returns:
            N x 3 x H x W in [-1, 1].
        """
        if self.config["noise"]:
            height, width = x.shape[-2:]
            starts = torch.zeros(1, 2, dtype=torch.long, device="cpu") if noise_starts is None else noise_starts
            noise = torch.stack([filters.smooth_noise(height, width, *start) for start in starts.tolist()])
            x = x + self.config["noise"] * noise.to(x)
        return self.generator(x, features if self.generator.feature_concatenation else None)

    def stylize(
        self,
        image: ImageLike | Sequence[ImageLike],
        *,
        return_saliency: bool = False,
        max_size: int | None = None,
        tile: int | str | None = "auto",
        brush: float = 1.0,
        strength: float = 1.0,
        keep_color: bool = False,
        keep_detail: float | None = None,
        mask: ImageLike | Sequence[ImageLike] | None = None,
        scene: Scene | None = None,
    ) -> Any:
        """Photos to paintings of the same kind and size.

        Args:
            image: a path, a PIL image, a NumPy array, a tensor, or a list of them; `sdpgan_hub.imaging` says of which
                shapes, dtypes and value ranges, and what each comes back as (a path as a PIL image).
            return_saliency: also give what `saliency_map` gives, without running S a second time.
            max_size: paint at no more than this many pixels along the longer side, and enlarge the painting to the
                photo's size. Bounds time and memory at the price of detail.
            tile: a photo is painted whole where that takes 2 GB at most and there is room, else in overlapping tiles
                ("auto"); in tiles of this many pixels a side; or whole at any price (None). Tiles change no pixel by
                more than a grey level where normalization is "pixel", or by a few in bfloat16. Models with "instance"
                paint tiles by the mean and variance of a copy of 512 px (URST: Chen et al., AAAI 2022), not by those of
                the photo.
            brush: how broad the strokes are beside the style's own, from above 0; 2 doubles them, and the photo is then
                painted first at half of `brush_size`, or of its own size where `brush_size` is 0. Strokes cannot be
                finer than those painted at the photo's own size.
            strength: from 0 (the photo) over 1 (the painting) up (more of the painting than there is).
            keep_color: whether the painting has the photo's chroma and gives luma alone (ITU-R BT.601).
            keep_detail: the share, 0 to 1, of the photo's fine structure that the painting has where S is highest; None
                takes the style's own, `config["keep_detail"]`, or 1 with a mask.
            mask: an image of the photo's size that takes the place of S's map: where it is white the photo's structure
                stays, painted with the finest brush alone and kept as `keep_detail` says; transparent is as black. For
                a list, one for all photos, or a list of as many.
            scene: an `sdpgan_hub.scene.Scene`, the same one for all frames of a film, in their order, which makes the
                painting steady; None paints each image by itself.

        Returns:
            The painting, or a list of them for a list; with `return_saliency`, (painting, map) or (paintings, maps).

        Raises:
            SDPGANError: if an image cannot be read, memory runs out, an argument is out of its range, a mask is not of
                its photo's size, or a map or a keep_detail without a mask is asked of a model without S.
        """
        if return_saliency:
            self._check_saliency_network()
        if keep_detail is None:
            keep_detail = self.config["keep_detail"] if mask is None else 1.0
        _check_keep_detail(keep_detail, self.saliency_network is not None or mask is not None)
        options = pipeline.Options(
            saliency=return_saliency,
            max_size=max_size,
            tile=tile,
            brush=brush,
            strength=strength,
            keep_color=keep_color,
            keep_detail=keep_detail,
        )
        results = list(pipeline.run(self, image, options, mask, scene))
        if not isinstance(image, (list, tuple)):
            return results[0] if return_saliency else results[0][0]
        paintings, maps = [painting for painting, _ in results], [map_ for _, map_ in results]
        return (paintings, maps) if return_saliency else paintings

    def saliency_map(
        self, image: ImageLike | Sequence[ImageLike], *, max_size: int | None = None, tile: int | str | None = "auto"
    ) -> Any:
        """Where people look in a photo; the arguments are those of `stylize`.

        Returns:
            A NumPy array, float32, H x W in [0, 1], 1 where people look; N x H x W for a batched tensor; a list for a
            list.

        Raises:
            SDPGANError: if an image cannot be read, memory runs out, an argument is out of its range, or S is left out
                of this model.
        """
        self._check_saliency_network()
        options = pipeline.Options(painting=False, saliency=True, max_size=max_size, tile=tile)
        maps = [map_ for _, map_ in pipeline.run(self, image, options)]
        return maps if isinstance(image, (list, tuple)) else maps[0]

    @classmethod
    def from_pretrained(  # type: ignore[override]  # more options
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        map_location: str | torch.device = "cpu",
    ) -> SDPGAN:
        """A saved model, in evaluation mode, with float32 parameters whatever dtype they are stored in.

        Only config.json and model.safetensors are read, and they must fit each other and this class to the last
        tensor; a pickle is never loaded. HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_TOKEN work as for every Hub model.

        Args:
            pretrained_model_name_or_path: a folder, the name of a shipped style, or a Hub id "org/name".
            revision: branch, tag or commit of a Hub model.
            token: for a private or gated Hub model; True takes the one of `hf auth login`.
            cache_dir: where Hub models are kept, in place of the default cache.
            local_files_only: take a Hub model from the cache and ask nobody.
            force_download: download a Hub model even if the cache has it.
            map_location: the device that the parameters end up on.

        Raises:
            SDPGANError: naming the file and the keys or the repository, and what is wrong with it.
        """
        options: dict[str, Any] = {
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "force_download": force_download,
        }
        source = styles.fetch_config(pretrained_model_name_or_path, revision=revision, **options)
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        defaults = {parameter.name: parameter.default for parameter in parameters}
        arguments = checkpoint.read_config(source.config, defaults, FIRST_ARGUMENTS)
        try:
            with torch.device("meta"):
                model = cls(**arguments)
        except SDPGANError as error:
            raise SDPGANError(f"{source.config}: {error}") from error
        styles.fetch_weights(source, **options)  # not before the config is known to be one of this library
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        model.load_state_dict(checkpoint.read_weights(source.weights, shapes), strict=True, assign=True)
        model.source = source
        try:
            # faster on a CPU; elsewhere it is not known to pay
            layout = torch.channels_last if torch.device(map_location).type == "cpu" else torch.preserve_format
            return model.to(map_location, memory_format=layout).eval()  # type: ignore[call-overload]  # not in its stub
        except (AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise SDPGANError(f"The model cannot be put on the device {str(map_location)!r}: {reason}") from error

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        dtype: torch.dtype = torch.float16,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Writes config.json, model.safetensors and README.md, each whole or not at all.

        Args:
            save_directory: the folder, made if need be.
            dtype: torch.float16, torch.bfloat16 or torch.float32; `from_pretrained` gives float32 again.
            repo_id: the Hub id that the card names; the folder's name by default.
            push_to_hub: also `push_to_hub` to `repo_id`, with `push_to_hub_kwargs`.
            model_card_kwargs: what the card says of this model, see `sdpgan_hub.card`. Without them, a README.md in the
                folder stays as it is, and a model that came with a card keeps that card.

        Returns:
            The URL of the commit if it was pushed, else None.

        Raises:
            SDPGANError: if the folder cannot be written, a weight is not finite in `dtype`, or a card keyword is wrong.
        """
        folder = Path(save_directory)
        name = repo_id or folder.resolve().name
        readme = folder / styles.CARD_FILE
        text = None  # a card that is there stays until keywords are given
        if model_card_kwargs is not None or not readme.exists():
            own = self.source.card() if self.source is not None and model_card_kwargs is None else None
            text = own or str(self.generate_model_card(model_id=name, dtype=dtype, **(model_card_kwargs or {})))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SDPGANError(f"{folder} cannot be made a folder: {error.strerror}.") from error
        checkpoint.write_weights(folder / styles.WEIGHTS_FILE, self.state_dict(), dtype)
        checkpoint.write_config(folder / styles.CONFIG_FILE, self.config)
        if text is not None:
            checkpoint.write_whole(readme, text.encode())
        if not push_to_hub:
            return None
        return self.push_to_hub(name, dtype=dtype, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)

    def push_to_hub(  # type: ignore[override]  # more options
        self,
        repo_id: str,
        *,
        dtype: torch.dtype = torch.float16,
        commit_message: str = "Push SDPGAN model",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        model_card_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """Writes the files of `save_pretrained` to the Hub repository `repo_id` in one commit, and makes it if need be.

        Args:
            repo_id: "org/name".
            dtype: as for `save_pretrained`.
            commit_message: the first line of the commit.
            private: for a repository that is made; None leaves it to the organisation's default.
            token: one with the right to write; by default that of HF_TOKEN or `hf auth login`.
            branch: the branch to commit to; main by default.
            create_pr: open a pull request instead of committing.
            model_card_kwargs: as for `save_pretrained`; without them, a README.md in the repository stays as it is.

        Returns:
            The URL of the commit.

        Raises:
            SDPGANError: if saving fails, or the Hub refuses, and why.
        """
        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype, repo_id=repo_id, model_card_kwargs=model_card_kwargs)
            try:
                repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
                keep_card = model_card_kwargs is None and api.file_exists(repo_id, styles.CARD_FILE, revision=branch)
                return api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                    ignore_patterns=[styles.CARD_FILE] if keep_card else None,
                )
            except Exception as error:  # whatever the client meets on its way is one sentence to the user
                raise SDPGANError(styles.explain_hub_error(error, repo_id)) from error

    def generate_model_card(
        self, *, model_id: str = "org/name", dtype: torch.dtype = torch.float16, **model_card_kwargs: Any
    ) -> ModelCard:
        """The card of this model as `save_pretrained` writes it; `model_card_kwargs` as there."""
        return card.render(
            HUB_METADATA,
            model_card_kwargs,
            model_id=model_id,
            config=self.config,
            dtype=str(dtype).removeprefix("torch."),
            generator_parameters=_parameter_count(self.generator),
            saliency_parameters=_parameter_count(self.saliency_network or nn.Identity()),
            paper_url=PAPER_URL,
        )

    def _check_saliency_network(self) -> None:
        if self.saliency_network is None:
            raise SDPGANError(
                "This model was trained without a saliency network (saliency_network: false) and has no saliency maps."
            )


def _check_keep_detail(share: float, has_map: bool) -> None:
    pipeline.check_keep_detail(share)
    if share and not has_map:
        raise SDPGANError("keep_detail needs the saliency network, which this model is without; leave it 0.")


def _check_size(name: str, size: int) -> None:
    if type(size) is not int or (size and (size < MIN_SIZE or size % SIZE_MULTIPLE)):
        raise SDPGANError(f"{name} is {size!r}; give 0, or a multiple of {SIZE_MULTIPLE} from {MIN_SIZE} up.")


def _check_clear_lines(widths: Sequence[int]) -> None:
    pair = isinstance(widths, (list, tuple)) and len(widths) == 2
    if not pair or any(type(width) is not int or width not in CLEAR_LINES for width in widths):
        raise SDPGANError(f"clear_lines is {widths!r}; give two numbers of pixels, each 0 or odd from 3 to 15.")


def _parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
