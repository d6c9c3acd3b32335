"""What several processes that train one model say to each other; alone, each of these does nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

__all__ = ["like", "num_workers", "sum_gradients", "sum_over_workers", "whole"]

BUCKET_ELEMENTS = 2**26
"""Gradients sent at once: one message for a small model, bounded copies for a large one."""


def num_workers() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_workers(values: Tensor) -> Tensor:
    """The sum of every worker's tensor, on each of them."""
    if num_workers() > 1:
        dist.all_reduce(values)
    return values


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Add up the workers' gradients, in place.

    `DistributedDataParallel` does this with hooks that expect one forward pass per backward pass; a step here runs
    the backbone over conversations, clauses and probes, once per part, and workers may have different numbers of
    parts. Their losses are shares of one mean, so one sum at the end of the step is all it takes, and is exact.
    A weight without gradient on every worker stays without, so that the optimiser leaves it alone as it would in
    one process.
    """
    if num_workers() == 1 or not parameters:
        return
    has_gradient = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(has_gradient, op=dist.ReduceOp.MAX)
    used = [p for p, has in zip(parameters, has_gradient.tolist(), strict=True) if has]
    for bucket in _buckets(used):
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in bucket])
        dist.all_reduce(flat)
        gradients = torch.split(flat, [p.numel() for p in bucket])
        for parameter, gradient in zip(bucket, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread over workers; all of them must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor on the device of another, spread over workers as that one is."""
    tensor = tensor.to(other.device)
    return distribute_tensor(tensor, other.device_mesh, other.placements) if isinstance(other, DTensor) else tensor


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and size + parameter.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket
