"""Small labelled files in the words that the tiny model knows."""

from __future__ import annotations

import json

CLAUSES = {
    "violence": ("kill", "do not kill"),
    "secrets": ("pin", "never ask for a pin"),
    "weather": ("weather", "do not talk of the weather"),
}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def talk(n, text):
    return [{"role": "user", "content": f"hello {n % 10}"}, {"role": "assistant", "content": text}]


def judgement(num_rows=60):
    """Rows of all three clauses: every fourth violates none, the others one."""
    rows = []
    for n in range(num_rows):
        named = None if n % 4 == 0 else list(CLAUSES)[n % 3]
        text = f"the {CLAUSES[named][0] if named else 'bank'} {n % 7}"
        clauses = [{"category": c, "guideline": g, "violated": c == named} for c, (_, g) in CLAUSES.items()]
        split = ("train", "eval")[n % 2]
        rows.append({"id": f"j{n}", "source": "s", "split": split, "messages": talk(n, text), "clauses": clauses})
    return rows


def single(num_rows=60):
    """Rows of one clause in two domains, half of them violating."""
    rows = []
    for n, row in enumerate(judgement(4 * num_rows)):
        if n % 4 != 0:
            clause = next(c for c in row["clauses"] if c["violated"])
            row = row | {"domain": f"d{n % 2}", "clauses": [clause | {"violated": bool((n // 2) % 2)}]}
            rows.append(row)
    return rows[:num_rows]


def binary(num_rows=40):
    return [
        {"id": f"b{n}", "messages": talk(n, ("kill", "hello")[n % 2] + f" {n % 9}"), "harmful": n % 2 == 0}
        for n in range(num_rows)
    ]


def preferences(num_rows=20):
    return [
        {"id": f"p{n}", "messages": talk(n, "hello")[:1], "chosen": "hello", "rejected": f"kill {n % 5}"}
        for n in range(num_rows)
    ]
