"""The networks of section 4.2 and appendix D.3: LeNets, VGG-16-512, ResNet-50."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError

VGG_CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
RESNET_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
EXPANSION = 4


def lenet_300_100(classes: int = 10) -> nn.Sequential:
    """784-300-100-10 with ReLU, 266,610 parameters; takes [n, 1, 28, 28]."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def lenet_5_caffe(classes: int = 10) -> nn.Sequential:
    """20 and 50 kernels of 5x5 with 2x2 max pools, then 500 units; 431,080 parameters.

    ReLU after each layer but the last; takes [n, 1, 28, 28].
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),  # after the pool, which is the same and cheaper
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, classes),
    )


def vgg_16_512(classes: int = 10) -> nn.Sequential:
    """VGG-16 for CIFAR: 13 convolutions of 3x3 with batch norm, five 2x2 max pools, 512 units.

    14,986,698 parameters with 10 classes; takes [n, 3, 32, 32].
    """
    layers: list[nn.Module] = []
    before = 3
    for channels in VGG_CHANNELS:
        if not channels:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(before, channels, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        before = channels
    layers += [nn.Flatten(), nn.Linear(before, 512), nn.ReLU(), nn.Linear(512, classes)]
    return _initialised(nn.Sequential(*layers))


def _initialised(model: nn.Sequential) -> nn.Sequential:
    """Normal weights of variance 2 / fan-out for the convolutions (He et al.)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolutions beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = width * EXPANSION
        self.path = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            convolution = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """[n, before, h, w] -> [n, 4 width, h / stride, w / stride]."""
        return torch.relu(self.path(x) + self.shortcut(x))


def resnet_50(classes: int = 1000) -> nn.Sequential:
    """ResNet-50 (stride in the 3x3 convolutions), 25,557,032 parameters with 1,000 classes.

    Takes [n, 3, h, w] with sides of at least 32.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    before = 64
    for stage, (width, blocks) in enumerate(RESNET_STAGES):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(before, width, stride))
            before = width * EXPANSION
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    return _initialised(nn.Sequential(*layers))


NETWORKS: dict[str, Callable[[int], nn.Sequential]] = {
    "lenet-300-100": lenet_300_100,
    "lenet-5-caffe": lenet_5_caffe,
    "vgg-16-512": vgg_16_512,
    "resnet-50": resnet_50,
}


def make_network(name: str, classes: int, seed: int) -> nn.Sequential:
    """A new network with weights drawn by `seed`; the global random state stays as it is.

    Raises UsageError for an unknown name.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown net {name!r}; choose one of {', '.join(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name](classes)


def count_parameters(model: nn.Module) -> int:
    """All trainable numbers: weights, biases, gains and shifts; not the running statistics."""
    return sum(param.numel() for param in model.parameters())


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are regularised and thresholded: all but those of batch norms.

    Gains and shifts of a norm go only when their channel is dead (random gradient pruning).
    """
    norms = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name, _ in module.named_parameters()
    }
    return {name: p for name, p in model.named_parameters() if name not in norms}
