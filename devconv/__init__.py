"""A GPU array backend with swappable devices: layers written once, run on any array library."""

from devconv import functional

__version__ = "0.1.0"

__all__ = ["__version__", "functional"]
