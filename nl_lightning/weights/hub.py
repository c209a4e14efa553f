"""Networks and blocks by Hugging Face's conventions: ``from_pretrained``, ``save_pretrained``, ``push_to_hub``.

A network's folder has ``model.safetensors``, our weight file, whose header alone says what the network is. Its
``config.json`` says the same for people and for the hub. A block's folder has its tensors, and its arguments in
``config.json``. Needs ``pip install nl-lightning[hub]``.
"""

import functools
from pathlib import Path
from typing import Any

from nl_lightning.errors import UserError, from_extra, one_line
from nl_lightning.models import nonlocal_block
from nl_lightning.models.fast import FastNonLocalBlock, FastVideoResNet
from nl_lightning.weights.file import WeightsHeader, fill, read_weights, save_weights

with from_extra("hub"):
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

FILE = "model.safetensors"
CARD: dict[str, Any] = {
    "library_name": "nl-lightning",
    "license": "apache-2.0",
    "tags": ["video-classification", "non-local"],
    "paper_url": "https://arxiv.org/abs/1711.07971",
}


class NonLocalBlock(FastNonLocalBlock, PyTorchModelHubMixin, **CARD):
    """:class:`nl_lightning.NonLocalBlock` with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``."""

    @functools.wraps(nonlocal_block.NonLocalBlock.__init__)  # type: ignore[misc]  # its arguments become config.json
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class VideoResNet(FastVideoResNet, PyTorchModelHubMixin, **CARD):
    """A network of a weight file with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    Args:
        header: what the weight file says of it; ``read_header`` and ``load_weights`` return one.
    """

    def __init__(self, header: WeightsHeader) -> None:
        super().__init__(header.net)
        self.header = header

    @classmethod
    def of_file(cls, path: Path | str) -> "VideoResNet":
        """The network of a weight file, or of a published network's name, in eval mode. UserError as load_weights."""
        tensors, header = read_weights(Path(path))
        net = cls(header)
        fill(net, tensors, f"weights: {path}")
        return net.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(save_directory / FILE, self.state_dict(), self.header)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **download: Any) -> "VideoResNet":
        """The network of a folder, or of a repository of the hub, in eval mode.

        Args:
            pretrained_model_name_or_path: a folder, or ``OWNER/NAME``.
            download: of ``huggingface_hub.hf_hub_download``, as `revision`, `token` or `local_files_only`.

        Raises:
            UserError: there is none, or its file is no weight file of ours.
        """
        name = str(pretrained_model_name_or_path)
        if Path(name).is_dir():
            return cls.of_file(Path(name) / FILE)
        try:
            file = hf_hub_download(name, FILE, **download)
        except (HfHubHTTPError, OSError, ValueError) as error:
            said = one_line(error, 300)
            raise UserError(f"{name}: no folder, and the hub gives none: {said}") from None
        return cls.of_file(file)
