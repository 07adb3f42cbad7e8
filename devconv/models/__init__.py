"""Published networks: functions that make unbuilt layers, every size known.

Names and shapes of the arrays are those of torchvision's networks, whose state dicts
``model.load_state_dict(state)`` takes; it has no LeNet-5, where the names are the paper's.

Compiled: a whole training step of :func:`devconv.pure` of a network runs under ``jax.jit``, and
under ``torch.compile(step, fullgraph=True)``, for dropout with a key that is a tensor:
``devconv.random.key(seed, like=x)``. PyTorch's compiler takes a network built before it as it is,
too, ``torch.compile(lambda x: model(x), fullgraph=True)``; the first call takes seconds.
"""

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
