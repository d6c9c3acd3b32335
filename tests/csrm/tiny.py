"""Tiny random-weight models of three families, with a word-level tokenizer: seconds to build, nothing to load."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModel, BertConfig, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from csrm.encoding import Encoder, Limits
from csrm.model import CSRM, Layout

WORDS = 200
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
FAMILIES = ("bert", "qwen3", "llama")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Knows the words w0 … w199, the roles and punctuation."""
    vocabulary = [
        *SPECIAL,
        *[f"w{n}" for n in range(WORDS)],
        "user",
        "assistant",
        "system",
        "tool",
        ":",
        ".",
        "a",
    ]
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )


def tiny_backbone(family: str) -> torch.nn.Module:
    """A random two-layer backbone; decoders have fewer key/value heads than query heads."""
    size = {
        "vocab_size": WORDS + 20,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    }
    if family == "bert":
        return AutoModel.from_config(BertConfig(**size), add_pooling_layer=False)
    kind = {"qwen3": Qwen3Config, "llama": LlamaConfig}[family]
    return AutoModel.from_config(kind(**size, num_key_value_heads=2, head_dim=8))


def tiny_model(family: str = "bert", num_probes: int = 0, seed: int = 0, **layout: int) -> CSRM:
    """A CSRM whose evidence is random too, so that every path changes the score."""
    torch.manual_seed(seed)
    sizes = {"width": 16, "max_conversation_tokens": 48, "max_clause_tokens": 24, **layout}
    layout_ = Layout(num_probes=num_probes, **sizes)
    limits = Limits(
        max_conversation_tokens=sizes["max_conversation_tokens"], max_clause_tokens=sizes["max_clause_tokens"]
    )
    model = CSRM(tiny_backbone(family), Encoder(tiny_tokenizer(), limits), layout_, name=f"tiny-{family}")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(3.0)  # default weights are so small that attention would be near uniform
        if num_probes:
            model.probe_tokens.normal_()
            model.probe_evidence.output.weight.normal_()
    return model.eval()
