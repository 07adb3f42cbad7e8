"""Checks for operations, layers and devices, yours included.

Is a pullback the transpose of the derivative (:func:`check_vjp`)? Does a device compute what the
host computes, layer by layer (:func:`parity`)? Does a quicker route say the same as the one
written once (:func:`generic`)?
"""

from devconv._fast import generic
from devconv.testing.parity import parity
from devconv.testing.pullback import check_vjp
from devconv.testing.report import Parity, Row

__all__ = ["Parity", "Row", "check_vjp", "generic", "parity"]
