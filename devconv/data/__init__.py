"""Batches of examples, on the host until a trainer moves them."""

from devconv.data.batches import Batches

__all__ = ["Batches"]
