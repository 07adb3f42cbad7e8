"""Published networks: functions that make unbuilt layers, every size known."""

from devconv.models.convnext import convnext_tiny
from devconv.models.lenet import lenet5
from devconv.models.mobilenet import mobilenet_v2
from devconv.models.resnet import resnet18, resnet34, resnet50
from devconv.models.vgg import vgg11, vgg13, vgg16, vgg19, vgg_small

__all__ = [
    "convnext_tiny",
    "lenet5",
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg_small",
]
