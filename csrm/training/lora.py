"""Low-rank adapters (LoRA, arXiv 2106.09685) on a backbone, by PEFT: few weights to train, none left in the end.

A linear layer W becomes W + (α / r) · B A with B = 0 at first. Every linear layer of the backbone gets one; the rest of
the backbone is frozen, the evidence heads are trained whole. Merging writes W + (α / r) · B A back as the weight.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from csrm.errors import CSRMError
from csrm.model import CSRM

__all__ = ["add_lora", "merge_lora"]

ALPHA_PER_RANK = 2
"""α / r."""


def add_lora(model: CSRM, rank: int) -> None:
    """Put adapters on all linear layers of the backbone and freeze what is under them, in place.

    Args:
        model: a model without adapters; seed torch first, for A is random.
        rank: r of the adapters, at least 1.

    Raises:
        CSRMError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise CSRMError("--lora needs the package peft: pip install 'csrm[lora]'") from None
    names = [name for name, module in model.backbone.named_modules() if isinstance(module, nn.Linear)]
    config = LoraConfig(r=rank, lora_alpha=ALPHA_PER_RANK * rank, lora_dropout=0.0, target_modules=names)
    inject_adapter_in_model(config, model.backbone)  # and freezes everything else of it


def merge_lora(model: CSRM) -> None:
    """Add the adapters to the weights and take them away, in place: the backbone is as stock as it was."""
    adapted: dict[str, Any] = {name: m for name, m in model.backbone.named_modules() if hasattr(m, "get_base_layer")}
    for name, module in adapted.items():
        module.merge()
        parent, _, attribute = name.rpartition(".")
        setattr(model.backbone.get_submodule(parent), attribute, module.get_base_layer())
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(True)
