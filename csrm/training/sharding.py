"""Weights spread over workers (FSDP2, `fully_shard`): for backbones that do not fit one device with their optimiser.

Every layer of the backbone is one unit that is gathered while it computes and let go again. The root is `Rewards`, not
the backbone: a step runs the backbone several times, and FSDP wants to see the whole of it as one forward pass.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from csrm.model import CSRM
from csrm.training.trainer import Rewards

__all__ = ["shard"]


def shard(model: CSRM, device: torch.device) -> Rewards:
    """Spread a model's weights over the workers of the process group, in place; each keeps its part on `device`.

    Gradients are summed, not averaged: the workers' losses are shares of one mean. All workers must run the same
    number of passes, so cut batches with `even`.

    Args:
        model: the same weights on every worker, on the CPU, so that no device must hold all of them; make the
            optimiser afterwards.
        device: this worker's.
    """
    rewards, mesh = Rewards(model), init_device_mesh(device.type, (dist.get_world_size(),))
    for module in (*_layers(model), model.backbone.get_input_embeddings(), model.clause_evidence):
        fully_shard(module, mesh=mesh)
    fully_shard(rewards, mesh=mesh)
    for module in rewards.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no sum with a factor
    return rewards


def _layers(model: CSRM) -> list[nn.Module]:
    """The backbone's repeated blocks."""
    lists = [module for module in model.backbone.modules() if isinstance(module, nn.ModuleList)]
    return [layer for layers in lists for layer in layers]
