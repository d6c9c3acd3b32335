"""YAML from strangers: plain data only, refused quickly where it is a bomb.

A policy needs neither anchors, aliases nor tags, and nests a few levels deep. Whatever has them is refused
while its events stream by, before anything is built: no "billion laughs", no recursion.
"""

from collections.abc import Hashable
from typing import Any

import yaml

from csrm.errors import ConfigurationError

__all__ = ["load_documents"]

_MAX_DEPTH = 16
_MAX_NUMBER_CHARACTERS = 40
_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc, valid-type]
    """The safe loader, which does not let the second of two equal keys win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value[:60]!r} appears twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)  # type: ignore[no-any-return]

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Numbers as wide as a page take minutes to read, and more than a float holds."""
        if len(node.value) > _MAX_NUMBER_CHARACTERS:
            raise yaml.MarkedYAMLError(problem=f"a number of {len(node.value)} digits", problem_mark=node.start_mark)
        is_float = node.tag.endswith("float")
        return self.construct_yaml_float(node) if is_float else self.construct_yaml_int(node)  # type: ignore[no-any-return]


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _Loader.add_constructor(_tag, _Loader.construct_number)


def load_documents(text: str) -> list[Any]:
    """The documents of a YAML text, empty ones left out.

    Raises:
        ConfigurationError: The text is no YAML, or uses what a policy does not need. Names the line.
    """
    try:
        _refuse_bombs(text)
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigurationError(f"{line}not valid YAML: {error.problem}; mend it or quote the text") from None
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"not valid YAML: {problem}; mend it or quote the text") from None
    return [document for document in documents if document is not None]


def _refuse_bombs(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if getattr(event, "anchor", None):  # Aliases carry their anchor's name.
            raise ConfigurationError(
                f"line {line}: YAML anchors (&) and aliases (*) are refused; write the text out, "
                "or quote text that begins with & or *"
            )
        if getattr(event, "tag", None):
            raise ConfigurationError(f"line {line}: YAML tags (!) are refused; quote text that begins with !")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ConfigurationError(f"line {line}: nested more than {_MAX_DEPTH} levels deep; flatten it")
