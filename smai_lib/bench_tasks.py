"""What `bench` trains: for each network its configuration, images, and how a textbook would train it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from .colorization.data import ColorizationData
from .colorization.model import ColorizationCNN, ColorizationUNet
from .colorization.studies import REPORT_CNN, UNET, color_data
from .core.config import ColorizationConfig, Config, MultiTaskConfig
from .core.runs import Data, build
from .multitask.fashion_mnist import FashionMNIST, fashion_mnist
from .multitask.studies import TEN_CONFIGS


@dataclass(frozen=True)
class Task:
    """One network to train, on `data`, an arm's share of a round: some seconds.

    `dataset(data, config)` gives one decoded and transformed image at a time, with the augmentation
    that `config` asks for; `loss(model, batch)` is that of a batch of them.
    """

    name: str
    config: Config
    data: Data
    dataset: Callable[[Data, Config], Dataset]
    loss: Callable[[nn.Module, list], torch.Tensor]

    def textbook_model(self) -> nn.Module:
        """The network as a textbook writes it: Conv - BatchNorm - ReLU - MaxPool, torch's own memory format."""
        _, model = build(self.config, 0, self.data)
        if hasattr(model, "backbone"):
            model.backbone = _textbook_blocks(model.backbone)
        elif isinstance(model.network, ColorizationCNN):
            model.network.encoder = _textbook_blocks(model.network.encoder)
        elif isinstance(model.network, ColorizationUNet):
            model.network.memory_format = torch.contiguous_format
        return model


def _textbook_blocks(blocks: nn.Sequential) -> nn.Sequential:
    # ours pools before the ReLU, and works in place
    return nn.Sequential(*(nn.Sequential(block.conv, block.norm, nn.ReLU(), block.pool) for block in blocks))


class GarmentOneByOne(Dataset):
    """Decodes and transforms one image at a time, as torchvision's data set and tutorials do."""

    def __init__(self, data: FashionMNIST, config: MultiTaskConfig):
        self.pictures = data.train.images
        self.labels = data.train.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.transform(to_pil_image(self.pictures[index]))
        return image, self.labels[index], (image * 0.5 + 0.5).mean()


class ColorOneByOne(Dataset):
    """One picture at a time: decoded, grey, moved as `config` says; its colours were encoded before."""

    def __init__(self, data: ColorizationData, config: ColorizationConfig):
        self.pictures, self.colors = data.train.images, data.train.colors
        self.decode = transforms.ToTensor()
        moves = [transforms.RandomHorizontalFlip()] if config.mirror else []
        if config.shift:
            size = self.pictures.shape[-2:]
            moves.append(transforms.RandomCrop(size, padding=config.shift, padding_mode="reflect"))
        self.move = transforms.Compose(moves)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        grey = self.decode(to_pil_image(self.pictures[index])).mean(0)
        grey, colors = self.move(torch.stack([grey, self.colors[index].float()]))
        return grey[None], colors.long()


def garment_loss(model: nn.Module, batch: list) -> torch.Tensor:
    images, labels, ink = batch
    output = model(images)
    return F.cross_entropy(output.logits, labels) + F.mse_loss(output.ink, ink.float())


def color_loss(model: nn.Module, batch: list) -> torch.Tensor:
    grey, colors = batch
    return F.cross_entropy(model(grey), colors)


def tasks() -> list[Task]:
    """Config 1 of Q1, the report's colorization network, and the U-Net."""
    config = TEN_CONFIGS["config 1"]
    garments = fashion_mnist().subset(54 * config.batch_size, 10, 10)
    colors = color_data().subset(24 * UNET.batch_size, 10, 10)
    return [
        Task("config 1", config, garments, GarmentOneByOne, garment_loss),
        Task("colorization CNN", REPORT_CNN, colors, ColorOneByOne, color_loss),
        Task("U-Net", UNET, colors, ColorOneByOne, color_loss),
    ]
