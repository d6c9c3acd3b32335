"""Model folders: what `from_pretrained` reads and `save_pretrained` writes. Safetensors and JSON, never pickle.

model.safetensors (or shards)   weights, `backbone.*` and the evidence heads
config.json                     the backbone's Hugging Face configuration
csrm.json                       layout, calibration (common and per configuration), fingerprint, facts of training
tokenizer.json, …               the tokenizer
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from csrm.calibration import Calibration
from csrm.encoding import Encoder, Limits, load_tokenizer
from csrm.errors import CheckpointError
from csrm.evidence import SILENCE, PermissionScope
from csrm.model import CSRM, Layout
from csrm.model_folder import FORMAT, model_folder, read_calibration, read_json, refusing_code, write_json
from csrm.verbalizer import QUESTION, token_ids

__all__ = [
    "from_backbone",
    "from_language_model",
    "load",
    "load_encoder",
    "recalibrate",
    "resolve_device",
    "resolve_dtype",
    "save",
]

NEAR_SILENCE = -8.0
"""Log-odds of violation that an untrained clause starts with beside a verbalizer."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LOADING: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
"""How a backbone is loaded: no pickle, no code."""


def load(folder: str | Path | None, *, dtype: str = "auto", device: str = "auto") -> CSRM:
    """Load a model folder; see `CSRM.from_pretrained`."""
    path = model_folder(folder)
    facts = read_json(path)
    target = resolve_device(device)
    with refusing_code(path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    weights = _read_weights(path)
    if facts["format"] == 1:
        weights |= _with_permissions(weights)
    with torch.device("meta"):
        backbone = AutoModel.from_config(config, trust_remote_code=False, **_backbone_options(config))
    layout = Layout(**facts["layout"])
    model = CSRM(backbone, load_encoder(path), layout, name=facts["name"])
    model = model.to_empty(device="cpu")
    _restore_buffers(model.backbone, config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: weights do not fit csrm.json: {str(error).splitlines()[-1].strip()}") from None
    model.calibration = read_calibration(facts, path)
    model.facts = facts["facts"]
    model.fingerprint = facts["fingerprint"]
    return model.to(target, resolve_dtype(dtype, target)).eval()


def save(model: CSRM, folder: str | Path, *, max_shard_size: str = "5GB") -> None:
    """Write a model folder; see `CSRM.save_pretrained`."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    model.fingerprint = _fingerprint(state, model.layout)
    save_torch_state_dict(state, path, max_shard_size=max_shard_size)
    model.backbone.config.save_pretrained(path)
    model.encoder.tokenizer.save_pretrained(path)
    for file in path.glob("*.safetensors"):  # written for the owner alone, unlike their neighbours
        file.chmod((path / "config.json").stat().st_mode)
    facts = {
        "format": FORMAT,
        "name": model.name,
        "layout": asdict(model.layout),
        "calibration": model.calibration.to_json(),
        "fingerprint": model.fingerprint,
        "facts": model.facts,
    }
    write_json(path, facts)


def recalibrate(source: str | Path | None, target: str | Path, calibration: Calibration) -> None:
    """Write a model folder anew with another calibration; every other byte of its files stays as it is.

    Args:
        source: a model folder (None: the embedded model).
        target: another folder, or `source` itself, whose `csrm.json` alone is then replaced.
        calibration: what takes the place of the model's own.

    Raises:
        CheckpointError: the target holds another model, or `source` is none.
    """
    path, target = model_folder(source), Path(target)
    facts = read_json(path)
    if (target / "csrm.json").is_file() and read_json(target)["fingerprint"] != facts["fingerprint"]:
        raise CheckpointError(f"{target}: holds another model; choose a new folder")
    target.mkdir(parents=True, exist_ok=True)
    if target.resolve() != path.resolve():
        for file in path.iterdir():
            if file.is_file() and file.name != "csrm.json":
                shutil.copyfile(file, target / file.name)
    write_json(target, facts | {"calibration": calibration.to_json()})


def from_backbone(folder: str | Path, layout: Layout, *, name: str = "csrm", device: str = "auto") -> CSRM:
    """A CSRM with untrained evidence on a pre-trained Hugging Face backbone (a folder or a hub name), float32."""
    with _quiet(), refusing_code(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        backbone: PreTrainedModel = AutoModel.from_pretrained(folder, **_LOADING, **_backbone_options(config))
    limits = Limits(max_conversation_tokens=layout.max_conversation_tokens, max_clause_tokens=layout.max_clause_tokens)
    model = CSRM(backbone, Encoder(load_tokenizer(folder), limits), layout, name=name)
    _share_segments(backbone)
    return model.to(resolve_device(device))


def from_language_model(folder: str | Path, layout: Layout, *, name: str = "csrm", device: str = "auto") -> CSRM:
    """A CSRM that reads its verdict off a decoder's own language-model head, before any training (float32).

    Its probes are the words of a question; the first word of the answer is the verdict. Clause evidence is new and
    starts near silence, so that training adds it.

    Raises:
        CheckpointError: the tokenizer cannot tell the verdicts apart, or the backbone is no decoder.
    """
    with _quiet(), refusing_code(folder):
        language_model = AutoModelForCausalLM.from_pretrained(folder, **_LOADING)
    tokenizer = load_tokenizer(folder)
    safe, unsafe = token_ids(tokenizer)
    question = torch.tensor(tokenizer(QUESTION, add_special_tokens=False)["input_ids"])
    layout = replace(layout, num_probes=len(question), verbalizer=(len(safe), len(unsafe)))
    limits = Limits(max_conversation_tokens=layout.max_conversation_tokens, max_clause_tokens=layout.max_clause_tokens)
    model = CSRM(language_model.base_model, Encoder(tokenizer, limits), layout, name=name)
    if not model.is_causal:
        raise CheckpointError(f"{folder}: a verbalizer needs a decoder; use the linear read-out")
    with torch.no_grad():
        head: torch.Tensor = language_model.get_output_embeddings().weight
        model.probe_tokens.copy_(model.backbone.get_input_embeddings()(question))
        model.get_submodule("probe_evidence.head").weight.copy_(head[[*safe, *unsafe]])  # type: ignore[operator]
        model.clause_evidence.output.bias[0].fill_(NEAR_SILENCE)
    return model.to(resolve_device(device))


def load_encoder(folder: str | Path | None = None) -> Encoder:
    """Tokenizer, template and limits of a model folder, without its weights."""
    path = model_folder(folder)
    layout = Layout(**read_json(path)["layout"])
    limits = Limits(max_conversation_tokens=layout.max_conversation_tokens, max_clause_tokens=layout.max_clause_tokens)
    return Encoder(load_tokenizer(path), limits)


def resolve_device(device: str) -> torch.device:
    """The named device, or for "auto" a GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The named type, or for "auto" bfloat16 where the hardware multiplies it fast."""
    if dtype == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for a second's work, and no report on weights that are left out on purpose."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{path}: no .safetensors file here; copy the model folder again")
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            weights |= load_file(file)
        except Exception as error:  # safetensors raises its own untyped error
            raise CheckpointError(f"{file}: unreadable weights ({error}); copy the model folder again") from None
    return weights


def _with_permissions(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What format 1 lacks, whose clauses could only object: permissions, silent, and what they are meant for."""
    try:
        weight, bias = weights["clause_evidence.output.weight"], weights["clause_evidence.output.bias"]
        hidden_size = weights["clause_evidence.row.weight"].shape[1]
    except KeyError as error:
        raise CheckpointError(f"no weights {error}; copy the model folder again") from None
    return {
        "clause_evidence.output.weight": torch.cat([weight, torch.zeros_like(weight)]),
        "clause_evidence.output.bias": torch.cat([bias, torch.full_like(bias, SILENCE)]),
        **{f"permission_scope.{name}": value for name, value in PermissionScope(hidden_size).state_dict().items()},
    }


def _fingerprint(state: dict[str, torch.Tensor], layout: Layout) -> str:
    digest = hashlib.sha256(json.dumps(asdict(layout), sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _backbone_options(config: Any) -> dict[str, Any]:
    # BERT's own pooler is not used; leaving it out keeps its weights out of checkpoints.
    return {"add_pooling_layer": False} if config.model_type == "bert" else {}


def _restore_buffers(backbone: PreTrainedModel, config: Any) -> None:
    """Fill buffers that no checkpoint stores (positions, rotary frequencies) after building on `meta`."""
    fresh_model = AutoModel.from_config(_one_layer(config), trust_remote_code=False, **_backbone_options(config))
    fresh = dict(fresh_model.named_buffers())
    for name, buffer in backbone.named_buffers():
        buffer.copy_(fresh[name])


def _one_layer(config: Any) -> Any:
    return type(config)(**{**config.to_dict(), "num_hidden_layers": 1, "layer_types": None})


def _share_segments(backbone: PreTrainedModel) -> None:
    """Start the clause segment where the conversation segment is: the backbone was pre-trained on that one alone."""
    for name, module in backbone.named_modules():
        if name.endswith("token_type_embeddings"):
            with torch.no_grad():
                module.weight[1] = module.weight[0]
