"""LeNet-5: the convolutional network that read cheques."""

from __future__ import annotations

from functools import partial

from devconv.layers import AvgPool2d, Conv2d, Dense, Flatten, Sequential


def lenet5(num_classes: int = 10, in_channels: int = 1, *, padding: int = 0) -> Sequential:
    """Make LeNet-5, in the fully connected form of today, with tanh and mean pooling.

    ==========================  ============  ==========
    layer                       output shape  parameters
    ==========================  ============  ==========
    c1: 6 filters 5×5, tanh     6×28×28       156
    s2: mean of 2×2             6×14×14
    c3: 16 filters 5×5, tanh    16×10×10      2,416
    s4: mean of 2×2             16×5×5
    c5: dense, tanh             120           48,120
    f6: dense, tanh             84            10,164
    output: dense               10            850
    ==========================  ============  ==========

    Args:
        num_classes: logits.
        in_channels: channels of the images; 1 for grey ones.
        padding: zeros around the image before c1, in pixels: 0 for the 32×32 images of the
            paper, 2 for the 28×28 ones of MNIST.

    Returns:
        A layer from ``(N, 1, 32, 32)`` to logits ``(N, 10)``; 61,706 parameters, which begin
        normal with variance 1 / fan_in, biases zero.

    Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to
    document recognition", Proc. IEEE 86 (1998). The paper's own network differs in four
    places, and has about 60,000 parameters: each filter of c3 sees only some channels, s2 and
    s4 learn a factor and a bias and squash, tanh is scaled, and the output is a distance to
    drawn digits. c5, a convolution with 5×5 kernels there, is the same product as here.

    >>> lenet5().build().parameter_count
    61706
    >>> lenet5(padding=2).output_shape((1, 28, 28))
    (10,)
    """
    conv = partial(Conv2d, kernel_size=5, activation="tanh", weight_init="lecun_normal")
    dense = partial(Dense, activation="tanh", weight_init="lecun_normal")
    return Sequential(
        {
            "c1": conv(in_channels, 6, padding=padding),
            "s2": AvgPool2d(2),
            "c3": conv(6, 16),
            "s4": AvgPool2d(2),
            "flatten": Flatten(),
            "c5": dense(16 * 5 * 5, 120),
            "f6": dense(120, 84),
            "output": dense(84, num_classes, activation=None),
        }
    )
