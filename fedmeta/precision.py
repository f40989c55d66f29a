"""Arithmetic of local training: plain float32, TF32 on a GPU's tensor cores, or bfloat16 where PyTorch's autocast says.

Parameters, updates and what optimisers keep are float32 in all three.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["float32", "tf32", "bf16"]


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute in a precision on a device within a `with` block.

    `float32` is float32 on a GPU as well, where PyTorch by itself convolves in TF32 (10 bits of mantissa for 23); on a
    CPU `tf32` is float32. `bf16` keeps the range of float32 and 7 bits of mantissa, in matrix products and
    convolutions; losses and norms stay float32.
    """
    # No cache of cast weights: under vmap and grad it would outlive the transformation that it was made in.
    cast = torch.autocast(device.type, torch.bfloat16, cache_enabled=False) if precision == "bf16" else nullcontext()
    with _products_in("tf32" if precision == "tf32" else "ieee"), cast:
        yield


@contextmanager
def _products_in(precision: Literal["tf32", "ieee"]) -> Iterator[None]:
    """How float32 products and convolutions are computed on a GPU."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = precision
        yield
    finally:
        for backend, kept in zip(backends, before, strict=True):
            backend.fp32_precision = kept
