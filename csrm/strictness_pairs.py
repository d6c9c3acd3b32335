"""Strictness pairs as a file: what a judge was asked, what it said, and which pairs passed.

JSON, with each ladder written out, so that a pair means the same after the library of ladders has changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csrm.dominance import LadderReport, StrictnessPair
from csrm.errors import CSRMError, InputError
from csrm.ladders import Ladder

if TYPE_CHECKING:
    from csrm.model import CSRM

__all__ = ["SavedPairs", "load_pairs", "save_pairs"]

_FORMAT = "csrm strictness pairs, 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPairs:
    """The pairs that passed, and who judged them."""

    pairs: tuple[StrictnessPair, ...]
    judge: str
    """The judge's name."""
    fingerprint: str
    """SHA-256 of the judge's weights and layout."""
    filtered: bool
    """Whether the judge decided; otherwise every pair is here."""


def save_pairs(
    path: str | Path, reports: Sequence[LadderReport], model: CSRM, *, alpha: float, bound: float, filtered: bool = True
) -> None:
    """Write all pairs with their statistics, those that passed marked `kept`."""
    document = {
        "format": _FORMAT,
        "judge": {"name": model.name, "fingerprint": model.fingerprint},
        "alpha": alpha,
        "bound": bound,
        "filtered": filtered,
        "ladders": [_report_to_json(report) for report in reports],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file") from None


def load_pairs(path: str | Path) -> SavedPairs:
    """Read the pairs that passed.

    Raises:
        InputError: the file is missing, or is none that `save_pairs` wrote.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        if document.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
        pairs = tuple(pair for entry in document["ladders"] for pair in _pairs_from_json(entry))
        judge = document["judge"]
        return SavedPairs(
            pairs=pairs,
            judge=str(judge["name"]),
            fingerprint=str(judge["fingerprint"]),
            filtered=bool(document["filtered"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, CSRMError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: not a file of strictness pairs ({problem}); csrm strictness writes one") from None


def _report_to_json(report: LadderReport) -> dict[str, Any]:
    shares = {name: _number(getattr(report, name)) for name in _SHARES}
    pairs = [
        {
            "strict": each.pair.strict,
            "lenient": each.pair.lenient,
            "n": each.n,
            "k": each.k,
            "moved": each.moved,
            "probability": _number(each.probability),
            "lower_bound": each.lower_bound,
            "enough": each.enough,
            "kept": each.kept,
        }
        for each in report.statistics
    ]
    return {**asdict(report.ladder), "num_conversations": report.num_conversations, **shares, "pairs": pairs}


_SHARES = ("adjacent_share", "monotone_share", "moved_share", "uncovered_share")


def _pairs_from_json(entry: dict[str, Any]) -> list[StrictnessPair]:
    lists = (tuple(map(str, entry[name])) for name in ("subcategories", "aliases", "always_forbidden"))
    ladder = Ladder(str(entry["category"]), *lists)
    return [StrictnessPair(ladder, pair["strict"], pair["lenient"]) for pair in entry["pairs"] if pair["kept"]]


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else value
