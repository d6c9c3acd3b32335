"""Alignment data from several scored responses per prompt: ranking, pairs, the best of n, and CoSA-Score.

Responses are ranked by p_safe × helpfulness, by p_safe alone where nobody rated helpfulness, and equal ones by record
id. Pair number i of a prompt is its i-th best response that complies against its i-th worst, as long as the one ranks
above the other: best against worst with one pair, the top k against the bottom k of reward distillation with k pairs
(arXiv 2605.30487 takes 5 and 5 of 100 samples). That a chosen response must comply is CoSAlign's rule (arXiv
2410.08968: no pair whose chosen response does disallowed harm).

What is known of responses is held in DuckDB tables, some hundred bytes each, which go to disk where they outgrow its
memory limit. Texts are in a file of their own and read one row at a time: sorted as columns, 300 MB of them were
measured to end DuckDB 2.0 at a limit of 300 MB, spilling or not. This process holds one shard and one batch of rows.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.compute as pc

from csrm import preference_queries as queries
from csrm.errors import InputError

if TYPE_CHECKING:
    import duckdb

    from csrm.messages import Message

__all__ = ["PairOptions", "PreferenceData", "Quality"]

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TEXTS = pa.schema(
    [("id", pa.int64()), ("start", pa.int64()), ("size", pa.int64()), ("prompt", pa.binary()), ("reply", pa.binary())]
)
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOptions:
    """What is made of the responses of a prompt."""

    form: Literal["pairs", "best-of-n"] = "pairs"
    """Pairs of a chosen and a rejected response, or the best responses alone."""
    top_k: int = 1
    """Pairs, or best responses, of a prompt."""
    min_margin: float = 0.0
    """Least difference of a pair's ranking scores; a pair without any difference is never written."""
    threshold: float = 0.5
    """A response complies iff its p_safe is not below this."""
    allow_violations: bool = False
    """Whether a chosen response may violate the configuration."""
    has_helpfulness: bool = False
    """Whether responses were rated; else each counts as 1."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not 0 <= self.min_margin <= 1:
            raise ValueError(f"min_margin must lie between 0 and 1, as scores do; got {self.min_margin}")

    @property
    def schema(self) -> pa.Schema:
        """Of the rows written: TRL's conversational preference, or prompt-completion, format and what it came from."""
        sides = ("chosen_", "rejected_") if self.form == "pairs" else ("",)
        texts = ("prompt", "chosen", "rejected") if self.form == "pairs" else ("prompt", "completion")
        ids = [(f"{side or 'record_'}id", pa.string()) for side in sides]
        names = ("score", "p_safe", *(["helpfulness"] if self.has_helpfulness else []))
        scores = [(f"{side}{name}", pa.float64()) for name in names for side in sides]
        margin = [("margin", pa.float64())] if self.form == "pairs" else []
        prompt = [("prompt_id", pa.string()), ("num_responses", pa.int64())]
        return pa.schema([*((name, _MESSAGES) for name in texts), *margin, *prompt, *ids, *scores])


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good a set of responses is; means are None where it is empty."""

    num_responses: int
    compliance_rate: float | None
    mean_p_safe: float | None
    mean_helpfulness: float | None
    """None also where nobody rated it."""
    cosa_score: float | None
    """Mean of helpfulness × (+1 if it complies, −1 if not) (CoSA-Score, arXiv 2410.08968); None where nobody
    rated helpfulness, for then it would be the compliance rate again."""


class PreferenceData:
    """Responses on their way to alignment data: `add` all, `pick`, give the texts of what is `wanted`, read `rows`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, options: PairOptions, spool: BinaryIO):
        """Begin with none.

        Args:
            connection: in which tables are made.
            options: what to make.
            spool: an empty file for texts, to be written and read.
        """
        self._connection = connection
        self._spool = spool
        self.options = options
        self.num_responses = 0
        """Added, those that are skipped included."""
        self.skipped = {"without_score": 0, "without_prompt": 0, "without_helpfulness": 0}
        """Responses that cannot be ranked, each counted once."""
        connection.execute(queries.TABLES)

    def add(self, responses: pa.Table) -> None:
        """Take rows of prompt_id, record_id, p_safe, helpfulness (null: not known), shard, record and part.

        Raises:
            InputError: A helpfulness lies outside 0 to 1: below, it would turn the ranking round; above, margins and
                CoSA-Score mean nothing.
        """
        ids = pa.array(range(self.num_responses, self.num_responses + responses.num_rows), pa.int64())
        responses = responses.append_column("id", ids)
        self.num_responses += responses.num_rows
        for reason, name in zip(self.skipped, ("p_safe", "prompt_id", "helpfulness"), strict=True):
            is_known = pc.is_valid(responses[name])
            self.skipped[reason] += responses.num_rows - pc.sum(is_known, min_count=0).as_py()
            responses = responses.filter(is_known)
        _check_range(responses)
        self._insert("responses", responses)

    def pick(self) -> None:
        """Rank the responses of each prompt, and choose from them."""
        options = self.options
        self._run(queries.RANKED, threshold=options.threshold)
        settings = {"top_k": options.top_k, "allow_violations": options.allow_violations}
        if options.form == "pairs":
            self._run(queries.PAIRS, min_margin=options.min_margin, **settings)
        else:
            self._run(queries.BEST, **settings)
        self._run(queries.WANTED)

    def wanted_shards(self) -> list[int]:
        """Shards with texts that are needed, in order."""
        return [shard for (shard,) in self._all("SELECT DISTINCT shard FROM wanted ORDER BY shard")]

    def wanted(self, shard: int) -> list[tuple[int, int, int]]:
        """The texts that are needed of a shard: id, record, part."""
        return self._all("SELECT id, record, part FROM wanted WHERE shard = $shard ORDER BY id", shard=shard)

    def add_texts(self, conversations: Iterable[tuple[int, Sequence[Message]]]) -> None:
        """Take conversations by id. The last message is the response, what is before it the prompt."""
        found = []
        self._spool.seek(0, io.SEEK_END)
        for id, (*prompt, last) in conversations:
            is_reply = prompt and last.role == "assistant"
            text = _to_json([*prompt, last])
            digests = (_digest(_to_json(prompt)), _digest(_to_json([last]))) if is_reply else (None, None)
            found.append((id, self._spool.tell(), self._spool.write(text), *digests))
        columns = zip(*found, strict=True) if found else [[]] * len(_TEXTS)
        self._insert(
            "texts",
            pa.table(
                [pa.array(column, field.type) for column, field in zip(columns, _TEXTS, strict=True)], schema=_TEXTS
            ),
        )

    def check_texts(self) -> None:
        """Drop what is no pair once its texts are known."""
        self._run(queries.READ)

    def rows(self) -> Iterator[pa.Table]:
        """Yield what is to be written, some rows at a time, in the order of prompts and ranks."""
        for batch in self._connection.sql(queries.ROWS).to_arrow_reader(_BATCH_ROWS):
            rows = [self._row(row) for row in batch.to_pylist()]
            yield pa.Table.from_pylist(rows, schema=self.options.schema)

    def counts(self) -> dict[str, int]:
        """How many responses there were, prompts, rows to write, and what was left out and why."""
        singles = "count(*) FILTER (num_responses = 1)"
        sizes = "SELECT any_value(num_responses) AS num_responses FROM ranked GROUP BY prompt_id"
        [(prompts, single)] = self._all(f"SELECT count(*), {singles} FROM ({sizes})")
        [(picked,)] = self._all("SELECT count(DISTINCT prompt_id) FROM picks")
        dropped = dict(self._all("SELECT dropped, count(*) FROM picks GROUP BY dropped"))
        written = dropped.pop(None, 0)
        reasons = ("near_ties", "same_text", "other_prompt", "no_reply")
        return {
            "responses": self.num_responses,
            **self.skipped,
            "prompts": prompts,
            "single_response": single,
            "none_to_choose": prompts - single - picked,
            **{reason: dropped.get(reason, 0) for reason in reasons[0 if self.options.form == "pairs" else 3 :]},
            "written": written,
        }

    def quality(self) -> dict[str, Quality]:
        """Of all responses that were ranked, and of those on each side of what is written."""
        sides = {"chosen": "chosen", "rejected": "rejected"} if self.options.form == "pairs" else {"best": "chosen"}
        found = {"all": self._quality()}
        for name, side in sides.items():
            found[name] = self._quality(f"WHERE id IN (SELECT {side} FROM picks WHERE dropped IS NULL)")
        return found

    def _quality(self, which: str = "") -> Quality:
        [(number, *means)] = self._all(f"{queries.QUALITY} {which}")
        # Sums over several threads: their last digits are not always the same.
        rate, p_safe, helpfulness, cosa = (None if mean is None else round(mean, 6) for mean in means)
        is_rated = self.options.has_helpfulness
        return Quality(
            num_responses=number,
            compliance_rate=rate,
            mean_p_safe=p_safe,
            mean_helpfulness=helpfulness if is_rated else None,
            cosa_score=cosa if is_rated else None,
        )

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as it is written; the schema leaves out what it has no field for."""
        for side in ("chosen", "rejected")[: 2 if self.options.form == "pairs" else 1]:
            *row["prompt"], reply = self._text(row[f"{side}_start"], row[f"{side}_size"])
            row[side] = [reply]
        if self.options.form == "pairs":
            return row
        own = {name: row[f"chosen_{name}"] for name in ("score", "p_safe", "helpfulness")}
        return row | own | {"completion": row["chosen"], "record_id": row["chosen_id"]}

    def _text(self, start: int, size: int) -> list[dict[str, str]]:
        self._spool.seek(start)
        return list(json.loads(self._spool.read(size)))

    def _insert(self, name: str, table: pa.Table) -> None:
        self._connection.register("given", table)
        self._connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM given")
        self._connection.unregister("given")

    def _run(self, statement: str, **parameters: Any) -> None:
        self._connection.execute(statement, parameters)

    def _all(self, query: str, **parameters: Any) -> list[Any]:
        return list(self._connection.sql(query, params=parameters).fetchall())


def _check_range(responses: pa.Table) -> None:
    is_outside = pc.invert(pc.and_(pc.greater_equal(responses["helpfulness"], 0.0), _at_most_one(responses)))
    for row in responses.filter(is_outside).slice(0, 1).to_pylist():
        raise InputError(
            f"{row['record_id']}: helpfulness is {row['helpfulness']:g}; it must lie between 0 and 1, rescale it"
        )


def _at_most_one(responses: pa.Table) -> pa.ChunkedArray:
    return pc.less_equal(responses["helpfulness"], 1.0)


def _to_json(conversation: Sequence[Message]) -> bytes:
    return json.dumps([message._asdict() for message in conversation], ensure_ascii=False).encode()


def _digest(text: bytes) -> bytes:
    """Stands for a text where two are compared; no two are known that share one."""
    return hashlib.blake2b(text, digest_size=16).digest()
