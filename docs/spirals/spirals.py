"""On which of three spirals does a point lie? A network and its data, with Lightning alone."""

import math

import pytorch_lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def points(number: int, noise: float, seed: int) -> TensorDataset:
    """So many points, and on which spiral each lies."""
    random = torch.Generator().manual_seed(seed)
    label = torch.randint(3, (number,), generator=random)
    along = torch.rand(number, generator=random)
    angle = 2 * math.pi * (label / 3 + along) + noise * torch.randn(number, generator=random)
    return TensorDataset(along[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1), label)


class Spirals(L.LightningDataModule):
    def __init__(self, noise: float = 0.4, batch_size: int = 50) -> None:
        super().__init__()
        self.noise, self.batch_size = noise, batch_size

    def train_dataloader(self) -> DataLoader:
        return DataLoader(points(600, self.noise, seed=1), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(points(300, self.noise, seed=2), 300)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(points(1000, self.noise, seed=3), 500)


class Net(L.LightningModule):
    def __init__(self, hidden: int = 32, layers: int = 2, lr: float = 0.03) -> None:
        super().__init__()
        self.lr, width, parts = lr, 2, []
        for _ in range(layers):
            parts += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.net = nn.Sequential(*parts, nn.Linear(width, 3))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss, right = self.measure(batch)
        self.log_dict({"train/loss": loss, "train/accuracy": right.mean()}, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        loss, right = self.measure(batch)
        self.log_dict({"val/loss": loss, "val/accuracy": right.mean()})

    def on_test_start(self) -> None:
        self.right: list[float] = []

    def test_step(self, batch: list[Tensor]) -> None:
        loss, right = self.measure(batch)
        self.log_dict({"test/loss": loss, "test/accuracy": right.mean()})
        self.right += right.tolist()

    def test_outcomes(self) -> dict[int, float]:
        """For nl-lightning: of each test point by its number, whether it was right."""
        return dict(enumerate(self.right))

    def measure(self, batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The loss, and of each point whether it is right."""
        point, label = batch
        logits = self.net(point)
        return nn.functional.cross_entropy(logits, label), (logits.argmax(dim=1) == label).float()
