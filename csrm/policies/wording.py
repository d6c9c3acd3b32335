"""How policies are worded: what forbids, allows or demands, and what a rule is about.

Plain regular expressions over English; a policy in another language loads too, with categories from its
headings and bullets, but its lead-in lines are not recognised.
"""

import re
from typing import Literal

__all__ = [
    "LEAD_JOINT",
    "MAX_CATEGORY_WORDS",
    "as_lead",
    "carry",
    "gives_direction",
    "has_bold_head",
    "introduces",
    "is_about_the_policy",
    "opens_with_direction",
    "plain",
    "polarity",
    "refers_back",
    "rule_parts",
    "short_category",
]


def _any(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


_ORDERS = _any(
    r"(?:do|does|must|should|shall|may|can|will)(?: not|n['’]t)",
    *(r"cannot", r"can['’]t", r"won['’]t", r"must", r"should", r"shall", r"never"),
)
_MAY = r"may(?! (?:also )?(?:include|involve|contain|vary|differ|have|apply|be from)\b)"
_NOT_ALLOWED = r"not (?:be |to be )?(?:allow|permi|accept|tolerat|okay|ok\b|fine\b|welcome|appropriate)\w*"
_FORBIDDEN = _any(
    *("disallowed", "prohibited", "forbidden", "banned", "excluded", "unacceptable", "restricted"),
    *("off[- ]limits", "out of bounds", "zero tolerance", _NOT_ALLOWED),
)
_ALLOWED = _any("(?:allow|permitt)ed", "permissible", "acceptable(?! use)")
_FORBIDS = r"(?:(?:disallow|prohibit|forbid|ban|exclude|avoid|refuse)s?|refrains?)"
_ALLOWS = r"(?:allow|permit|enable|accept)s?"
_STATE = _any(_FORBIDDEN, _ALLOWED, "fine", "ok(?:ay)?", "required")
_STATES = rf"(?:is|are|can be) (?:\w+ly |always |only )?{_STATE}"
_NEGATED = (
    r"(?:(?:[a-z]+(?: not|n['’]t)(?! only)|never|cannot)(?: be)?(?: (?:allow|permi|accept|tolerat|enabl)\w*)?"
    r"|don['’]?ts?)"
)
_NO = r"(?:strictly )?no(?= )"

_FORBID = re.compile(rf"\b{_any(_FORBIDDEN, _FORBIDS, _NEGATED, _NO)}\b", re.I)
_ALLOW = re.compile(
    rf"\b{_any(_ALLOWED, _ALLOWS, _MAY, 'ok(?:ay)?', 'dos', 'exceptions?')}\b|^(?:\w+ )?(?:can|do)$", re.I
)
_DIRECTION = re.compile(
    rf"\b{_any(_ORDERS, _MAY, _FORBIDDEN, _ALLOWED, _STATES, _FORBIDS, _ALLOWS, 'always')}\b|^{_NO}|^only\b",
    re.I,
)
# A rule begins with an order, or with a short subject (no subordinate clause) and what it must or may.
_SUBJECT = (
    r"(?P<subject>(?:(?!(?:that|which|who|whose|as|if|when|where|to|because|are|is|was|were|has|have|with)\b)"
    r"[\w'’-]+ ){1,6}?)"
)
_RULES_OUT_OR_IN = r"(?:disallow|prohibit|forbid|ban|exclude|allow|permit)s?"
_OPENING = re.compile(
    _any(
        *(_NO, _ORDERS, _NOT_ALLOWED, _FORBIDS, _ALLOWS, "always", "only", "ensure", "zero tolerance"),
        _SUBJECT + _any(_ORDERS, _MAY, _STATES, _RULES_OUT_OR_IN),
    )
    + r"\b",
    re.I,
)
_CONNECTIVE = re.compile(
    r"(?:however|but|and|also|additionally|in addition|furthermore|moreover|nevertheless|similarly|finally"
    r"|please|in general|generally)\b,? ",
    re.I,
)
_ACTOR = re.compile(r"(?:we|you|it|they|users?|the \w+|our \w+|all \w+|any \w+)\b", re.I)
_MERELY_ALLOWS = re.compile(r"(?:allow|permit|enable|accept)\b", re.I)
# Sentences about the policy itself: "all content must comply with the following guidelines:".
_RULE_WORD = r"(?:guideline|rule|polic(?:y|ie)|setting|criteri(?:on|a)|requirement|principle|standard)s?"
_ABOUT_THE_POLICY = re.compile(
    rf"\b(?:following|below)\b[^.]{{0,40}}\b{_RULE_WORD}\b|\b(?:these|this|the following) {_RULE_WORD}\b",
    re.I,
)
_ANNOUNCES = re.compile(r"\b(?:following|below)\b", re.I)
_REFERS_BACK = re.compile(
    r"(?:this|these|those|they|it|such|examples?|for (?:example|instance)|specifically|in particular"
    r"|namely)\b",
    re.I,
)

_BOLD_HEAD = re.compile(r"(\*\*|__)(?P<head>[^*]{1,80}?)(?:[:.]\1:?|\1(?::| [–—-]))\s+(?P<rest>\S.*)", re.S)
_HEAD = re.compile(r"(?P<head>[^:.!?;]{1,60}?)(?::| [–—-])\s+(?P<rest>\S.*)", re.S)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_TAG = re.compile(r"</?(?:br|b|i|u|em|strong|p|span|div|a|sup|sub)\b[^<>]{0,200}>", re.I)
_EMPHASIS = re.compile(r"(?<![\w*])(?:\*(?=\S)([^*]{1,200})(?<=\S)\*|_(?=\S)([^_]{1,200})(?<=\S)_)(?![\w*])")

MAX_CATEGORY_WORDS = 6
LEAD_JOINT = " — "
_SKIP_FIRST = re.compile(r"an?|any|all|the|be|of|in|for", re.I)
_STOP_AT = re.compile(r"that|which|who|unless|if|when|where|because|such|including|depending|to|so|as", re.I)
_SKIP_LAST = re.compile(
    rf"{_STOP_AT.pattern}|{_SKIP_FIRST.pattern}|and|or|with|without|from|by|on|at|into|about|not|is|are|we",
    re.I,
)


def plain(text: str) -> str:
    """Text without Markdown's inline marks: emphasis, code ticks, links, simple tags."""
    text = _TAG.sub(" ", _LINK.sub(r"\1", text)).replace("**", "").replace("`", "")
    return " ".join(_EMPHASIS.sub(r"\1\2", text).split())


def is_about_the_policy(text: str) -> bool:
    """Whether a sentence only points at the rules: "content must comply with the following guidelines"."""
    return bool(_ABOUT_THE_POLICY.search(text))


def introduces(text: str) -> bool:
    """Whether text announces what follows it: no full sentence, or one about "the following"."""
    return not text.endswith((".", "!", "?")) or bool(_ANNOUNCES.search(text))


def refers_back(text: str) -> bool:
    """Whether a sentence goes on with the one before it: "This may include:"."""
    return bool(_REFERS_BACK.match(text))


def gives_direction(text: str) -> bool:
    """Whether text forbids, allows or demands something, other than to follow the policy."""
    return bool(_DIRECTION.search(text)) and not is_about_the_policy(text)


def polarity(text: str) -> Literal["forbids", "allows", ""]:
    """Whether a heading or lead-in forbids or allows what stands under it; empty for neither and for both."""
    rest, num_forbidding = _FORBID.subn("", text)
    allows = bool(_ALLOW.search(rest))
    if bool(num_forbidding) == allows:
        return ""
    return "allows" if allows else "forbids"


def opens_with_direction(text: str) -> bool:
    """Whether text begins as a rule does: with no, never, or a short subject and what it must (not) do."""
    return bool(_OPENING.match(_without_connective(text))) and not is_about_the_policy(text[:200])


def _without_connective(text: str) -> str:
    match = _CONNECTIVE.match(text)
    return text[match.end() :] if match else text


def has_bold_head(text: str) -> bool:
    """Whether text begins with a bold name set off by a mark: "**Violence**: ...", "**Violence.** ..."."""
    return bool(_BOLD_HEAD.match(text))


def as_lead(text: str) -> str:
    """A lead-in as it stands before a guideline: without "However," and the final colon."""
    text = _without_connective(text).rstrip(" :.—–-")
    return text[:1].upper() + text[1:]


def carry(lead: str, guideline: str) -> str:
    """The guideline with the lead-in that forbids or allows it, unless it says so itself.

    A guideline that merely begins with "allow" may end the sentence "The assistant must not:".
    """
    if not lead or (opens_with_direction(guideline) and not _MERELY_ALLOWS.match(guideline)):
        return guideline
    return f"{as_lead(lead)}{LEAD_JOINT}{guideline}"


def rule_parts(text: str) -> tuple[str, str]:
    """Category ("" if the rule names none) and guideline of one rule: bold or before a colon or dash.

    A head that itself forbids or allows ("**No gore**: ...") names the category and stays in the guideline.
    """
    match = _BOLD_HEAD.match(text) or _HEAD.match(text)
    if match is None or len((head := plain(match["head"])).split()) > MAX_CATEGORY_WORDS:
        return "", plain(text)
    if gives_direction(head):
        return short_category(head), f"{head}: {plain(match['rest'])}"
    return head, plain(match["rest"])


def short_category(text: str) -> str:
    """A name of at most six words for what a rule is about, from its first words."""
    text = _without_connective(text)
    opening = _OPENING.match(text)
    if opening and opening["subject"] and not _ACTOR.match(opening["subject"]):
        text = opening["subject"]
    while (opening := _OPENING.match(text)) and len(text) > opening.end() + 1:
        text = text[opening.end() :].lstrip(" ,:")
    words: list[str] = []
    for word in text.split(maxsplit=3 * MAX_CATEGORY_WORDS):
        if len(words) == MAX_CATEGORY_WORDS or (len(words) > 1 and _STOP_AT.fullmatch(word)):
            break
        if words or not _SKIP_FIRST.fullmatch(word):
            words.append(word)
        if len(words) > 1 and word[-1] in ",;:.!?)":
            break
    while len(words) > 1 and _SKIP_LAST.fullmatch(words[-1]):
        words.pop()
    name = " ".join(words).strip(" ,;:.!?()—–-") or text[:40].strip()
    return name[:1].upper() + name[1:80]
