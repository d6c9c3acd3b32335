"""Rows of public test sets, read from JSON Lines as their authors publish them.

CoSApien        {prompt, scenario, response, [type], [label]}   scenario names a configuration; label, given by people,
                                                                is safe / unsafe of the response under it
DynaBench       {policy, transcript, label}                     numbered rules; turns "User:" and "Agent:"; PASS or FAIL
over-refusal    {prompt, [label], [type], [harmful]}            XSTest, OR-Bench: prompts that only look harmful

Each reader returns cells of `csrm.labelled` rows or rows of its own; every complaint names file and line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from csrm.configurations import Clause, Configuration
from csrm.errors import ConfigurationError, InputError
from csrm.labelled import BinaryRow, read_json_lines
from csrm.messages import Message
from csrm.policies.text import read_policy_text

__all__ = [
    "PolicyRow",
    "ScenarioRow",
    "agent_turns",
    "in_split",
    "parse_policy",
    "read_dynabench",
    "read_over_refusal",
    "read_scenarios",
]

_COMPLIES = {"safe", "compliant", "complies", "pass", "allowed"}
_VIOLATES = {"unsafe", "violating", "violates", "fail", "disallowed"}
_TURN = re.compile(r"^[ \t]*(User|Agent)[ \t]*:[ \t]*", re.M | re.I)

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioRow:
    """A reply under a named scenario (CoSApien)."""

    id: str
    conversation: list[Message]
    scenario: str
    """Id of the configuration that it is judged by."""
    type: str
    """What the prompt asks for: allowed, disallowed, partial; empty if the file does not say."""
    violates: bool | None
    """Whether the reply violates the scenario's configuration; None if nobody said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """A dialogue and the policy that its agent is to keep (DynaBench)."""

    id: str
    turns: list[list[Message]]
    """The dialogue up to each of the agent's turns, which is judged in its context."""
    configuration: Configuration
    violates: bool


def read_scenarios(path: str | Path, configurations: Sequence[Configuration]) -> list[ScenarioRow]:
    """Read CoSApien rows with responses.

    Args:
        path: JSON Lines; a scenario matches the configuration whose id it is, spaces and case aside.
        configurations: one for each scenario.

    Raises:
        InputError: a field is missing, a scenario has no configuration, or a label is not known.
    """
    known = {configuration.id for configuration in configurations}
    rows = []
    for number, raw in read_json_lines(path):
        scenario = re.sub(r"[^a-z0-9]+", "_", _text(path, number, raw, "scenario").lower()).strip("_")
        if scenario not in known:
            names = ", ".join(sorted(known))
            raise InputError(f"{path}, line {number}: no configuration {scenario!r} for this scenario, only {names}")
        talk = [Message("user", _text(path, number, raw, "prompt"))]
        talk.append(Message("assistant", _text(path, number, raw, "response")))
        label = raw.get("label")
        rows.append(
            ScenarioRow(
                id=str(raw.get("id", number)),
                conversation=talk,
                scenario=scenario,
                type=str(raw.get("type") or "").lower(),
                violates=None if label is None else _violates(path, number, label),
            )
        )
    return rows


def read_dynabench(path: str | Path) -> list[PolicyRow]:
    """Read DynaBench rows.

    Raises:
        InputError: a field is missing, the transcript has no agent turn, or the label is neither PASS nor FAIL.
    """
    rows = []
    for number, raw in read_json_lines(path):
        turns = agent_turns(_text(path, number, raw, "transcript"))
        if not turns:
            raise InputError(f"{path}, line {number}: no line of the transcript starts with 'Agent:'")
        policy, label = _text(path, number, raw, "policy"), _text(path, number, raw, "label")
        try:
            configuration = parse_policy(policy)
        except ConfigurationError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
        row_id, violates = str(raw.get("id", number)), _violates(path, number, label)
        rows.append(PolicyRow(id=row_id, turns=turns, configuration=configuration, violates=violates))
    return rows


def read_over_refusal(path: str | Path) -> list[BinaryRow]:
    """Read prompts as replies that begin to comply, "Sure. {prompt}" (arXiv 2605.30487 on XSTest and OR-Bench).

    A prompt is harmful if `harmful` says so, else if `label` is unsafe, else if `type` begins with "contrast" (XSTest's
    unsafe twins); without any of these it is harmless, as all of OR-Bench's are.

    Raises:
        InputError: a row has neither `prompt` nor `messages`, or its label is not known.
    """
    rows = []
    for number, raw in read_json_lines(path):
        if "prompt" not in raw and raw.get("messages"):
            raw = raw | {"prompt": raw["messages"][-1]["content"]}
        prompt = _text(path, number, raw, "prompt")
        if raw.get("harmful") is not None:
            harmful = bool(raw["harmful"])
        elif raw.get("label") is not None:
            harmful = _violates(path, number, raw["label"])
        else:
            harmful = str(raw.get("type") or "").startswith("contrast")
        talk = [Message("user", prompt), Message("assistant", f"Sure. {prompt}")]
        rows.append(BinaryRow(id=str(raw.get("id", number)), conversation=talk, harmful=harmful))
    return rows


def parse_policy(text: str) -> Configuration:
    """A policy's text as a configuration; one without recognisable rules is a single clause.

    Raises:
        ConfigurationError: the text is empty.
    """
    policy = read_policy_text(text)
    rules = policy.rules or (("", text),)
    clauses = tuple(Clause(category=category, guideline=guideline) for category, guideline in rules)
    return Configuration(id="policy", clauses=clauses, context=policy.context if policy.rules else "")


def agent_turns(transcript: str) -> list[list[Message]]:
    """The dialogue up to and including each agent turn; text before the first speaker is the system's."""
    parts = _TURN.split(transcript)
    talk = [Message("system", parts[0].strip())] if parts[0].strip() else []
    turns = []
    for speaker, content in zip(parts[1::2], parts[2::2], strict=True):
        talk.append(Message("assistant" if speaker.lower() == "agent" else "user", content.strip()))
        if talk[-1].role == "assistant":
            turns.append(list(talk))
    return turns


def in_split(path: str | Path, split: str | None, rows: Sequence[Row]) -> list[Row]:
    """The rows of a file whose `split` field says so; all of them without a split to ask for.

    Raises:
        InputError: no row of the file belongs to the split.
    """
    if split is None:
        return list(rows)
    wanted = {str(raw.get("id", number)) for number, raw in read_json_lines(path) if raw.get("split") == split}
    kept = [row for row in rows if getattr(row, "id") in wanted]  # noqa: B009
    if not kept:
        raise InputError(f"{path}: no row has split {split!r}; leave --split out or choose another file")
    return kept


def _text(path: str | Path, number: int, raw: Mapping[str, Any], name: str) -> str:
    if not isinstance(raw.get(name), str):
        raise InputError(f"{path}, line {number}: no text under {name!r}; this file is of another shape")
    return str(raw[name])


def _violates(path: str | Path, number: int, label: Any) -> bool:
    word = str(label).strip().lower()
    if isinstance(label, bool) or word not in _COMPLIES | _VIOLATES:
        raise InputError(f"{path}, line {number}: label {str(label)[:40]!r} is neither safe nor unsafe, PASS nor FAIL")
    return word in _VIOLATES
