"""Safety configurations: what one user, product or region forbids and allows, as sets of clauses.

Read from YAML, or from a Markdown or plain-text policy as people write them. A configuration's meaning does
not depend on the order of its clauses, and neither does its fingerprint.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml

from csrm.errors import ConfigurationError
from csrm.policies.text import read_policy_text
from csrm.policies.wording import rule_parts, short_category
from csrm.safe_yaml import load_documents

__all__ = ["Clause", "Configuration", "dump_configuration", "is_policy_name", "load_configurations", "policy_files"]

MAX_FILE_BYTES = 2**20
_YAML_SUFFIXES = frozenset({".yaml", ".yml"})
SUFFIXES = _YAML_SUFFIXES | {".md", ".markdown", ".txt"}
_ID = re.compile(r"[a-z][a-z0-9_]*")
_CLAUSE_KEYS = ("category", "guideline")
_HEAD_KEYS = ("id", "title", "threshold", "context")
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One category with its guideline. Texts are held NFC-normalised, with single spaces."""

    category: str
    """A short name for what the guideline is about; may be empty."""
    guideline: str
    """What is forbidden, allowed, or both, in natural language."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "category", _normalised(self.category))
        object.__setattr__(self, "guideline", _normalised(self.guideline))
        if not self.guideline:
            raise ConfigurationError("guideline is empty; write what is forbidden or allowed")

    @property
    def text(self) -> str:
        """What a model reads: the guideline, after its category unless it begins with it."""
        if self.guideline.casefold().startswith(self.category.casefold()):
            return self.guideline
        return f"{self.category}: {self.guideline}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A set of clauses under an id. Construction checks it; the loader adds the file to every complaint."""

    id: str
    """Letters a-z, digits and underscores, so that SQL needs no quotes: `p_safe.game`."""
    title: str = ""
    """For people; made from the id where empty."""
    clauses: tuple[Clause, ...]
    threshold: float = 0.5
    """A conversation violates the configuration iff p_safe is below this."""
    context: str = ""
    """Who we are, who the audience is. Read by the model, never reported as violated."""
    source: str | None = field(default=None, compare=False)
    """The file that it came from."""

    def __post_init__(self) -> None:
        title = self.title.strip() or self.id.replace("_", " ").capitalize()
        object.__setattr__(self, "title", _normalised(title))
        object.__setattr__(self, "context", _normalised(self.context))
        object.__setattr__(self, "clauses", tuple(self.clauses))
        if not _ID.fullmatch(self.id):
            raise ConfigurationError(
                f"id {self.id[:60]!r} must be letters a-z, digits and underscores, a letter first; rename it"
            )
        if not self.clauses:
            raise ConfigurationError("no clauses; write at least one rule that forbids or allows something")
        if not 0 < self.threshold < 1:
            raise ConfigurationError(f"threshold {self.threshold} must lie between 0 and 1, both excluded")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what its column of scores depends on: id, context and clauses, their order aside.

        Title and threshold are left out, because they change no score: a verdict is read off p_safe.
        """
        clauses = sorted((clause.category, clause.guideline) for clause in self.clauses)
        canonical = json.dumps([self.id, self.context, clauses], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def dump_configuration(configuration: Configuration) -> str:
    """The YAML form of a configuration; loading it gives an equal configuration."""
    clauses = [{key: getattr(clause, key) for key in _CLAUSE_KEYS} for clause in configuration.clauses]
    document = {key: getattr(configuration, key) for key in _HEAD_KEYS} | {"clauses": clauses}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def load_configurations(path: str | Path | Sequence[str | Path]) -> list[Configuration]:
    """Load every configuration of a file, a folder or several of them.

    Args:
        path: Files (.yaml, .yml, .md, .markdown, .txt), or folders, which are searched recursively in sorted
            order. Hidden files and READMEs in folders are passed over.

    Returns:
        The configurations in the order of their files; ids are unique.

    Raises:
        ConfigurationError: One line that names the file, what is wrong and what to do.
    """
    paths = [path] if isinstance(path, str | Path) else path
    if not paths:
        raise ConfigurationError("no files given; name at least one file or folder")
    by_id: dict[str, Configuration] = {}
    for file in (file for each in paths for file in policy_files(Path(each))):
        for configuration in _load_file(file):
            if known := by_id.get(configuration.id):
                raise ConfigurationError(
                    f"{file}: id {configuration.id!r} is taken by {known.source}; give each its own id"
                )
            by_id[configuration.id] = configuration
    return list(by_id.values())


def _normalised(text: str) -> str:
    """NFC with single spaces, so that equal fingerprints mean equal model input."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigurationError(f"{text[:60]!a} holds half a character (a lone surrogate); write it anew")
    return text


def policy_files(path: Path) -> list[Path]:
    """The policy files of a folder, or the one file that is named.

    Raises:
        ConfigurationError: There is none.
    """
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigurationError(f"{path}: not a policy file; name it {', '.join(sorted(SUFFIXES))}")
        return [path]
    if not path.is_dir():
        raise ConfigurationError(f"{path}: no such file or folder; check the path")
    # Hidden folders hold copies of their own: Kubernetes mounts every file of a ConfigMap twice.
    found = [file for file in sorted(path.rglob("*")) if is_policy_name(file.relative_to(path)) and file.is_file()]
    if not found:
        raise ConfigurationError(f"{path}: no policies in this folder; put {', '.join(sorted(SUFFIXES))} files into it")
    return found


def is_policy_name(inside: PurePath) -> bool:
    """Whether a file of a folder is taken for a policy, by its path below that folder."""
    is_hidden = any(part.startswith(".") for part in inside.parts)
    return not is_hidden and inside.stem.lower() != "readme" and inside.suffix.lower() in SUFFIXES


def _load_file(file: Path) -> list[Configuration]:
    try:
        text = _read_text(file)
        documents = _documents(text) if file.suffix.lower() in _YAML_SUFFIXES else [_policy_document(text)]
        return [_configuration(document, file) for document in documents]
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"larger than {MAX_FILE_BYTES // 2**20} MiB; split it into several files")
        text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise ConfigurationError(f"cannot be read ({error.strerror}); check the file") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"not UTF-8 text (at byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        raise ConfigurationError("holds null bytes; save it as UTF-8 text")
    if not text.strip():
        raise ConfigurationError("is empty; write at least one rule into it")
    return text


def _documents(text: str) -> list[Any]:
    """One mapping per configuration: of every YAML document, or of every entry of a list of mappings."""
    found: list[Any] = []
    for document in load_documents(text):
        if not isinstance(document, list):
            found.append(document)
        elif any(isinstance(entry, dict) and "clauses" in entry for entry in document):
            found += document
        else:
            found.append({"clauses": document})
    if not found:
        raise ConfigurationError("is empty; write at least one rule into it")
    return found


def _policy_document(text: str) -> dict[str, Any]:
    """The mapping that a Markdown or plain-text policy stands for."""
    front = _FRONT_MATTER.match(text)
    # The empty line stands for the leading ---, so that complaints name the file's own lines.
    head: Any = (load_documents(f"\n{front[1] or ''}") or [{}])[0] if front else {}
    if not isinstance(head, dict):
        raise ConfigurationError("front matter must be `key: value` lines; mend it or remove the leading ---")
    _check_keys(head, _HEAD_KEYS, "front matter")
    policy = read_policy_text(text[front.end() :] if front else text)
    if not policy.rules:
        raise ConfigurationError("no rules found; write each as a bullet, a numbered line or under a heading")
    clauses = [{"category": category, "guideline": guideline} for category, guideline in policy.rules]
    context = " ".join(filter(None, [_text(head, "context"), policy.context]))
    return {"title": policy.title} | head | {"context": context, "clauses": clauses}


def _configuration(document: Any, file: Path) -> Configuration:
    if not isinstance(document, dict):
        raise ConfigurationError(
            f"holds {_kind(document)} where a mapping belongs; write `clauses:` with one rule per dash"
        )
    _check_keys(document, (*_HEAD_KEYS, "clauses"), "")
    entries = document.get("clauses") or []
    if not isinstance(entries, list):
        raise ConfigurationError(f"clauses must be a list, not {_kind(entries)}; begin each with a dash")
    threshold = document.get("threshold", 0.5)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise ConfigurationError(f"threshold is {_kind(threshold)}; write a number between 0 and 1, such as 0.5")
    return Configuration(
        id=_text(document, "id") or _slug(file),
        title=_text(document, "title"),
        threshold=float(threshold),
        context=_text(document, "context"),
        clauses=tuple(_clause(entry, number) for number, entry in enumerate(entries, start=1)),
        source=str(file),
    )


def _clause(entry: Any, number: int) -> Clause:
    try:
        if isinstance(entry, str):
            category, guideline = rule_parts(entry)
            return Clause(category=category or short_category(guideline), guideline=guideline)
        if not isinstance(entry, dict):
            raise ConfigurationError(f"is {_kind(entry)}; write a text in quotes, or category and guideline")
        _check_keys(entry, _CLAUSE_KEYS, "")
        guideline = _text(entry, "guideline")
        category = short_category(guideline) if entry.get("category") is None else _text(entry, "category")
        return Clause(category=category, guideline=guideline)
    except ConfigurationError as error:
        raise ConfigurationError(f"clause {number}: {error}") from None


def _check_keys(mapping: dict[Any, Any], known: Iterable[str], where: str) -> None:
    known = tuple(known)
    for key in map(str, mapping):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
            raise ConfigurationError(f"{where and where + ': '}unknown key {key[:60]!r}; {mend}")


def _text(mapping: dict[Any, Any], key: str) -> str:
    """The text under a key; empty where the key is absent or has no value."""
    value = mapping.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{key} is {_kind(value)}, not a text; put it in quotes")
    return value or ""


def _kind(value: Any) -> str:
    """A value as a person would call it: "the number 5", "a list"."""
    if isinstance(value, bool):
        return f"the YAML word {'yes' if value else 'no'}"
    if isinstance(value, int | float):
        return f"the number {str(value)[:20]}"
    kinds = {str: "a text", list: "a list", dict: "a mapping", type(None): "nothing"}
    return kinds.get(type(value), "a date")


def _slug(file: Path) -> str:
    """An id from a file's name: "01 Children's App.md" gives "children_s_app"."""
    ascii_name = unicodedata.normalize("NFKD", file.stem).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", ascii_name).strip("_").lstrip("0123456789_")
    if not slug:
        raise ConfigurationError("no id can be made from this file's name; add `id:`, or rename the file")
    return slug
