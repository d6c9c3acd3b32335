"""Suites over files: reads rows, runs `csrm.evaluation` on them, yields a record per file and suite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from csrm.errors import InputError

if TYPE_CHECKING:
    from csrm import CSRM, Configuration
    from csrm.evaluation.blind_baseline import BlindBaseline
    from csrm.evaluation.figures import Resampling
    from csrm.labelled import LabelledRow

__all__ = ["EvaluateOptions", "choose", "run"]

MAX_BLIND_ROWS = 6_000
"""Rows of each file that the configuration-blind baseline is fitted to; more change it little."""

Row = TypeVar("Row")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What to measure, on what."""

    model: str | None = None
    """Model folder; None is the embedded model."""
    counterfactual: Sequence[str] = ()
    own: Sequence[str] = ()
    per_clause: Sequence[str] = ()
    any_clause: Sequence[str] = ()
    binary: Sequence[str] = ()
    preferences: Sequence[str] = ()
    over_refusal: Sequence[str] = ()
    cosapien: Sequence[str] = ()
    dynabench: Sequence[str] = ()
    probe: Sequence[str] = ()
    configuration: str | None = None
    """Policy for binary rows and preferences; None is the bundled general_safety."""
    scenarios: str | None = None
    """Configurations that CoSApien's scenarios name."""
    blind_data: Sequence[str] = ()
    """Judgement rows that the configuration-blind baseline is fitted to."""
    split: str | None = None
    """Only rows whose `split` field is this."""
    limit: int | None = None
    """At most this many rows of each file."""
    resamples: int = 1000
    """Bootstrap resamples; 0 leaves intervals out."""
    resample_by: Literal["row", "prompt"] = "row"
    dtype: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cosapien and not self.scenarios:
            raise InputError("--cosapien needs --scenarios, the configurations that its scenarios name")


def run(options: EvaluateOptions, *, on_start: Callable[[str], None] = lambda text: None) -> Iterator[Record]:
    """Run every suite that was asked for.

    Args:
        options: what to measure.
        on_start: told which file and suite comes next.

    Yields:
        JSON-able records: file, suite, model, settings, figures. A figure that does not exist is null.

    Raises:
        CSRMError: what the user can mend.
    """
    import csrm

    evaluation = _Evaluation(options, csrm.CSRM.from_pretrained(options.model, dtype=options.dtype))
    for entry, suite, measure in evaluation.plan():
        on_start(f"{Path(entry).name} · {suite}")
        try:
            figures = measure()
        except ValueError as error:
            raise InputError(f"{entry}: {error}") from None
        yield evaluation.record(entry, suite, figures)


@dataclass(slots=True)
class _Evaluation:
    options: EvaluateOptions
    model: CSRM
    _blind: list[BlindBaseline] = field(default_factory=list)
    """The fitted baseline, once it is needed."""

    def plan(self) -> Iterator[tuple[str, str, Callable[[], Record]]]:
        """File, name of the suite, and what computes its figures."""
        from csrm import labelled
        from csrm.evaluation import suites
        from csrm.evaluation.figures import per_clause_figures

        model, options, resampling = self.model, self.options, self.resampling
        for entry in options.counterfactual:
            for name, same_domain in (("other domains", False), ("same domain", True)):
                yield (
                    entry,
                    f"counterfactual, {name}",
                    lambda e=entry, same=same_domain: suites.counterfactual(
                        model, self.labelled(e), self.blind, resampling, same_domain=same, seed=options.seed
                    ),
                )
        judged: tuple[tuple[Sequence[str], str, Callable[..., Record]], ...] = (
            (options.own, "own clauses", suites.own_clauses),
            (options.per_clause, "per clause", per_clause_figures),
            (options.any_clause, "any clause", suites.any_clause),
        )
        for entries, name, suite in judged:
            for entry in entries:
                yield entry, name, lambda e=entry, f=suite: f(model, self.labelled(e), self.blind, resampling)
        for entry in options.binary:
            yield (
                entry,
                "binary",
                lambda e=entry: suites.binary(
                    model, self.rows(labelled.read_binary, e), self.configuration, self.blind, resampling
                ),
            )
        yield from self._public_sets()
        for entry in options.preferences:
            yield (
                entry,
                "preferences",
                lambda e=entry: suites.preferences(
                    model, self.rows(labelled.read_preferences, e), self.configuration, self.blind, resampling
                ),
            )
        for entry in options.probe:
            yield from self._probes(entry)

    def _public_sets(self) -> Iterator[tuple[str, str, Callable[[], Record]]]:
        """Suites over the shapes that public test sets are published in."""
        import csrm
        from csrm.evaluation import rows, suites

        model, options, resampling = self.model, self.options, self.resampling
        for entry in options.over_refusal:
            yield (
                entry,
                "over-refusal",
                lambda e=entry: suites.binary(
                    model, self.rows(rows.read_over_refusal, e), self.configuration, self.blind, resampling
                ),
            )
        for entry in options.cosapien:
            configurations = csrm.load_configurations(str(options.scenarios))
            yield (
                entry,
                "scenarios",
                lambda e=entry, own=configurations: suites.scenarios(
                    model,
                    self.rows(lambda path: rows.read_scenarios(path, own), e),
                    own,
                    self.blind,
                    resampling,
                ),
            )
        for entry in options.dynabench:
            yield (
                entry,
                "whole policies",
                lambda e=entry: suites.dynabench(model, self.rows(rows.read_dynabench, e), self.blind, resampling),
            )

    def _probes(self, entry: str) -> Iterator[tuple[str, str, Callable[[], Record]]]:
        import torch

        import csrm
        from csrm.evaluation import flip_probes

        rows = self.labelled(entry)
        single = flip_probes.single_violations(rows)
        if not single:
            raise InputError(f"{entry}: probes need rows that violate exactly one of several clauses")
        model, seed, resampling = self.model, self.options.seed, self.resampling
        yield entry, "flip probe", lambda: flip_probes.flip(model, single, resampling)
        yield entry, "contradiction probe", lambda: flip_probes.contradiction(model, single, resampling)
        yield entry, "dilution probe", lambda: flip_probes.dilution(model, rows, seed=seed)
        exact = model
        if model.dtype != torch.float32:
            exact = csrm.CSRM.from_pretrained(self.options.model, dtype="float32")
        yield entry, "clause order probe", lambda: flip_probes.clause_order(exact, single, seed=seed)

    @property
    def resampling(self) -> Resampling:
        from csrm.evaluation.figures import Resampling

        options = self.options
        return Resampling(num_resamples=options.resamples, by=options.resample_by, seed=options.seed)

    @property
    def configuration(self) -> Configuration:
        """The policy for binary rows and preferences."""
        import csrm
        from jobs.demo import SAMPLE_CONFIGURATIONS

        path = self.options.configuration
        if path is None:
            return next(c for c in csrm.load_configurations(SAMPLE_CONFIGURATIONS) if c.id == "general_safety")
        found = csrm.load_configurations(path)
        if len(found) > 1:
            raise InputError(f"{path}: holds {len(found)} configurations; --configuration takes one")
        return found[0]

    @property
    def blind(self) -> BlindBaseline | None:
        """The configuration-blind baseline, fitted when first asked for; None without data for it."""
        from csrm.evaluation.blind_baseline import BlindBaseline
        from csrm.evaluation.cells import sample
        from csrm.labelled import read_labelled
        from jobs.train_data import split_share

        if not self.options.blind_data:
            return None
        if not self._blind:
            rng = np.random.default_rng(self.options.seed)
            read = [read_labelled(split_share(entry)[0]) for entry in self.options.blind_data]
            rows = [row for own in read for row in sample(own, MAX_BLIND_ROWS, rng)]
            self._blind.append(BlindBaseline(self.model, rows))
        return self._blind[0]

    def labelled(self, entry: str) -> list[LabelledRow]:
        """Judgement rows of PATH or PATH@SHARE."""
        from csrm.labelled import holdout, read_labelled
        from jobs.train_data import split_share

        path, share = split_share(entry)
        return self._chosen(path, read_labelled(path) if share is None else holdout(read_labelled(path), share)[1])

    def rows(self, read: Callable[[str], Sequence[Row]], path: str) -> list[Row]:
        """Rows of any other shape."""
        return self._chosen(path, read(path))

    def _chosen(self, path: str, rows: Sequence[Row]) -> list[Row]:
        return choose(path, rows, split=self.options.split, limit=self.options.limit, seed=self.options.seed)

    def record(self, entry: str, suite: str, figures: Record) -> Record:
        """What is written of a suite: where the figures come from, and the figures."""
        settings = {"split": self.options.split, "limit": self.options.limit, "seed": self.options.seed}
        return {
            "file": Path(entry).name,
            "suite": suite,
            "model": self.model.name,
            "model_fingerprint": self.model.fingerprint[:16],
            "calibration_fingerprint": self.model.calibration.fingerprint[:16],
            "dtype": str(self.model.dtype).removeprefix("torch."),
            **{name: value for name, value in settings.items() if value is not None},
            **_plain(figures),
        }


def choose(path: str, rows: Sequence[Row], *, split: str | None, limit: int | None, seed: int) -> list[Row]:
    """What --split and --limit leave of a file's rows, in their order.

    Raises:
        InputError: nothing is left.
    """
    from csrm.evaluation.rows import in_split

    rows = in_split(path, split, rows)
    if not rows:
        raise InputError(f"{path}: no labelled rows; choose another file")
    if limit is None or len(rows) <= limit:
        return list(rows)
    chosen = np.random.default_rng(seed).choice(len(rows), limit, replace=False)
    return [rows[n] for n in sorted(chosen.tolist())]


def _plain(value: Any) -> Any:
    """Figures rounded to six decimals (what is smaller keeps its digits); NaN, which is no JSON, becomes null."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.6g}")
    return value
