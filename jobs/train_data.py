"""What `csrm train` reads, and how it reaches the workers: batches drawn and tokenised by Ray Data, in step order."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from csrm.errors import InputError

if TYPE_CHECKING:
    import ray

    from csrm.batch import Part
    from csrm.chat import Endpoint
    from csrm.encoding import Encoder
    from csrm.labelled import LabelledRow, PreferenceRow
    from csrm.training.data_quality import Quality
    from csrm.training.sampler import BatchSource, TrainingData
    from csrm.training.trainer import TrainOptions

__all__ = [
    "Material",
    "Proposing",
    "Sources",
    "file_facts",
    "named_endpoint",
    "read_material",
    "split_share",
    "stream_parts",
]

DRAW_SHARE = 0.2
"""Of a core's scheduling slot, for a process that draws batches; training takes the rest."""
STEPS_PER_BLOCK = 16
MAX_DRAWERS = 4
"""Processes that draw for one worker; each takes a few tens of milliseconds per batch."""
AHEAD_BYTES = 64 * 2**20
"""Batches drawn ahead of the training, in Ray's object store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Files to learn from."""

    data: Sequence[str]
    """Judgement rows; "PATH@SHARE" keeps a share of its prompts out altogether."""
    preferences: Sequence[str] = ()
    strictness_pairs: str | None = None
    exclude_prompts: Sequence[str] = ()
    """Files in any shape whose prompts must not be learned."""
    contrasts: bool = True
    """Whether rows from the bundled libraries join, and single messages are put into conversations."""
    num_contrasts: int = 4_000
    """Rows drawn from the library of requests and answers."""
    num_exchanges: int = 12_000
    """Rows drawn from the library of exchanges."""
    holdout: float = 0.02
    """Share of the clauses kept out, for calibration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposing:
    """How many rows get clauses that somebody proposes, and who does."""

    num_proposed: int = 0
    """Rows asked about; 0: none."""
    proposer_url: str | None = None
    """OpenAI-compatible endpoint; without one, clauses of the training data itself are proposed."""
    proposer_model: str | None = None
    """The model's name on that server."""

    def __post_init__(self) -> None:
        if self.endpoint() is not None and not self.num_proposed:
            raise InputError("--proposer-url is not asked anything; say about how many rows with --num-proposed")

    def endpoint(self) -> Endpoint | None:
        """Whom to ask; None without a URL."""
        return named_endpoint(self.proposer_url, self.proposer_model, "--proposer")


@dataclass(slots=True, kw_only=True)
class Material:
    """What was read."""

    training: TrainingData
    held: list[LabelledRow]
    """Rows about clauses that are not trained on."""
    rows: Quality
    preferences: Quality
    files: list[dict[str, Any]] = field(default_factory=list)
    """Name, digest and rows of each file."""


def read_material(sources: Sources, *, max_characters: int, seed: int) -> Material:
    """Read, clean and divide the training data.

    Raises:
        InputError: a file cannot be read, or nothing is left to train on.
    """
    import numpy as np

    from csrm import contrast, exchanges
    from csrm.framing import Frames
    from csrm.labelled import holdout_clauses
    from csrm.strictness import load_pairs
    from csrm.training.data_quality import Quality, clean_preferences, clean_rows
    from csrm.training.sampler import TrainingData

    quality, preference_quality, files = Quality(), Quality(), []
    excluded = _excluded_prompts(sources.exclude_prompts)
    rows = [row for entry in sources.data for row in _judgements(entry, quality, files)]
    frames = None
    if sources.contrasts:
        topics, rng = contrast.load_contrasts(), np.random.default_rng(seed)
        rows += contrast.contrast_rows(topics, rng, sources.num_contrasts)
        rows += exchanges.exchange_rows(exchanges.load_exchanges(), topics, rng, sources.num_exchanges)
        files.append(file_facts(contrast.LIBRARY) | {"rows": sources.num_contrasts})
        files += [file_facts(path) for path in exchanges.LIBRARY]
        frames = Frames(refusals=topics[0].refusals, openers=topics[0].openers)
    rows = clean_rows(rows, quality, excluded=excluded, max_characters=max_characters)
    pairs = [row for path in sources.preferences for row in _pairs(path, preference_quality, files)]
    pairs = clean_preferences(pairs, preference_quality, excluded=excluded, max_characters=max_characters)
    kept, held = holdout_clauses(rows, sources.holdout)
    if not kept:
        raise InputError("nothing is left to train on; see what was left out, and --holdout")
    strictness = load_pairs(sources.strictness_pairs).pairs if sources.strictness_pairs else ()
    others = [*sources.exclude_prompts, *([sources.strictness_pairs] if sources.strictness_pairs else [])]
    files += [file_facts(path) for path in others]
    training = TrainingData(rows=kept, preferences=pairs, strictness=strictness, frames=frames)
    return Material(training=training, held=held, rows=quality, preferences=preference_quality, files=files)


def split_share(entry: str) -> tuple[str, float | None]:
    """Split "PATH@SHARE" into path and share; a path without a share gives None."""
    path, at, share = entry.rpartition("@")
    if not at or Path(entry).exists():
        return entry, None
    try:
        value = float(share)
    except ValueError:
        raise click.BadParameter(f"{entry}: after @ comes a share such as 0.25", param_hint="--data") from None
    if not 0 <= value < 1:
        raise click.BadParameter(f"{entry}: the share must be at least 0 and below 1", param_hint="--data")
    return path, value


def named_endpoint(url: str | None, model: str | None, option: str) -> Endpoint | None:
    """The endpoint that OPTION-url and OPTION-model name; None without them.

    Raises:
        InputError: one of them is missing.
        EndpointError: the URL is none.
    """
    from csrm.chat import Endpoint

    if url is None and model is None:
        return None
    if model is None:
        raise InputError(f"{option}-url needs {option}-model: the name under which the server knows its model")
    if url is None:
        raise InputError(f"{option}-model needs {option}-url: an address such as http://localhost:8000/v1")
    return Endpoint(url=url, model=model)


def _judgements(entry: str, quality: Quality, files: list[dict[str, Any]]) -> list[LabelledRow]:
    from csrm.labelled import holdout, labelled_rows, read_json_lines
    from csrm.training.data_quality import JUDGEMENT_COLUMNS, survey

    path, share = split_share(entry)
    lines = list(read_json_lines(path))
    marked = survey((raw for _, raw in lines), JUDGEMENT_COLUMNS, quality)
    rows = [row for row in labelled_rows(path, lines) if row.id not in marked]
    quality.evaluation_rows += len(marked)
    kept, held = holdout(rows, share or 0.0)
    files.append(file_facts(path) | {"rows": len(kept), "held_out": len(held)})
    return kept


def _pairs(path: str, quality: Quality, files: list[dict[str, Any]]) -> list[PreferenceRow]:
    from csrm.labelled import preference_rows, read_rows
    from csrm.training.data_quality import PREFERENCE_COLUMNS, survey

    lines = list(read_rows(path))
    survey((raw for _, raw in lines), PREFERENCE_COLUMNS, quality)
    rows = preference_rows(path, lines)
    files.append(file_facts(path) | {"rows": len(rows)})
    return rows


def file_facts(path: str | Path) -> dict[str, Any]:
    """Name and digest of a file, for the record."""
    return {"file": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def _excluded_prompts(paths: Sequence[str]) -> set[str]:
    from csrm.conversations import parse_record
    from csrm.errors import RecordError
    from csrm.labelled import prompts, read_json_lines

    excluded: set[str] = set()
    for path in paths:
        for number, raw in read_json_lines(path):
            try:
                for _, conversation in parse_record(raw):
                    excluded |= prompts(conversation)
            except RecordError as error:
                raise InputError(f"{path}, line {number}: {error}") from None
    return excluded - {""}


def stream_parts(
    source: ray.ObjectRef[tuple[BatchSource, Encoder]],
    options: TrainOptions,
    *,
    first: int,
    rank: int,
    num_workers: int,
    even: bool,
) -> Iterator[list[Part]]:
    """One worker's parts of every batch from step number `first` on, in order.

    A batch is a function of seed and step, and its division over workers of the batch, so each worker reads a
    dataset of step numbers of its own. Ray Train's own shards go to whoever asks first and start from the beginning
    after a restart: neither would repeat a run.
    """
    import pyarrow as pa
    from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
    from ray.data.read_api import from_blocks

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources(object_store_memory=AHEAD_BYTES)
    context.execution_no_progress_timeout_s = -1  # waiting for the training to catch up is no reason to give up
    context.target_max_block_size = 1  # each batch goes on as soon as it is drawn
    numbers = range(first, options.num_steps)
    blocks = [
        pa.table({"number": list(numbers[start : start + STEPS_PER_BLOCK])})
        for start in range(0, len(numbers), STEPS_PER_BLOCK)
    ]
    if not blocks:
        return
    # `from_arrow` asks for a whole core to look at each block, which training has taken.
    drawn = from_blocks(blocks).map_batches(
        Drawer,
        fn_constructor_args=(source, options, rank, num_workers, even),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=min(MAX_DRAWERS, len(blocks))),
        num_cpus=DRAW_SHARE,
    )
    for number, row in zip(numbers, drawn.iter_rows(), strict=True):
        assert row["number"] == number
        yield pickle.loads(row["parts"])


class Drawer:
    """Draws, tokenises and cuts batches; keeps the training data in memory."""

    def __init__(
        self,
        source: ray.ObjectRef[tuple[BatchSource, Encoder]],
        options: TrainOptions,
        rank: int,
        num_workers: int,
        even: bool,
    ):
        import ray

        self.sampler, self.encoder = ray.get(source)
        self.options, self.rank, self.num_workers, self.even = options, rank, num_workers, even

    def __call__(self, steps: Any) -> Any:
        """(number) to (number, parts): one worker's parts, pickled on their way to it and nowhere else."""
        import pyarrow as pa

        from csrm.training.trainer import draw_parts

        numbers = steps.column("number").to_pylist()
        parts = [
            draw_parts(self.sampler, self.encoder, number, self.options, num_workers=self.num_workers, even=self.even)[
                self.rank
            ]
            for number in numbers
        ]
        return pa.table({"number": numbers, "parts": pa.array([pickle.dumps(own) for own in parts], pa.large_binary())})
