# SPDX-License-Identifier: GPL-2.0-or-later
"""Reference pages from docstrings: each section of a docstring becomes a part of the page."""

import enum
import inspect
import re
import textwrap

_SECTION = re.compile(r"(?m)^(\w[\w ]*)\n-{3,}\n")
_LISTS = {"Parameters", "Attributes", "Raises", "Returns"}


def reference(name, thing, members=()):
    """Heading, signature and docstring of a function, class or method, then its members."""
    text = [f"## `{name}`", *_body(name, thing)]
    for member in members:
        static = inspect.getattr_static(thing, member)
        inner = getattr(static, "__func__", static)
        text.append(f"### `{name.rsplit('.', 1)[-1]}.{member}`")
        text += _body(member, getattr(inner, "fget", None) or inner, is_property=_has_fget(static))
    return "\n\n".join(text)


def _has_fget(static):
    return isinstance(static, property)


def _body(name, thing, *, is_property=False):
    if not is_property and callable(thing):
        yield f"```python\n{_signature(name, thing)}\n```"
    parts = _SECTION.split(inspect.getdoc(thing) or "")
    yield _prose(parts[0])
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        # what follows the last section of a kernel's docstring is its counterpart in Linux
        told, linux, where = body.partition("\nLinux: ")
        yield f"**{title}**"
        if title == "Examples":
            yield f"```pycon\n{told.strip()}\n```"
        elif title in _LISTS:
            yield _definitions(told)
        else:
            yield _prose(told)
        if linux:
            yield _prose(f"Linux: {where}")


def _prose(text):
    return text.strip().replace("::\n", ":\n")


def _definitions(body):
    """Items of a section, each with what is said about it."""
    items = []
    for line in textwrap.dedent(body).strip().splitlines():
        if line and not line[0].isspace():
            word, _, told = line.partition(" : ")
            items.append((word, [told] if told else []))
        elif line.strip():
            items[-1][1].append(line.strip())
    return "\n\n".join(
        f"{', '.join(f'`{part.strip()}`' for part in word.split(','))}\n:   {_told(told)}"
        for word, told in items
    )


def _told(lines):
    """What is said about an item; a type stands alone on the first line, before a sentence."""
    if len(lines) > 1 and lines[1][:1].isupper():
        lines = [f"{lines[0]}.", *lines[1:]]
    return "\n    ".join(lines or ["see above"])


def _signature(name, thing):
    """`name(...)`, one parameter a line where it is long; modules of types are left out."""
    name = name.rsplit(".", 1)[-1]
    if isinstance(thing, type) and issubclass(thing, enum.Enum):
        return f"class {name}(Enum)"
    signature = inspect.signature(thing)
    keep = [p for n, p in signature.parameters.items() if n not in {"self", "cls"}]
    back = signature.return_annotation
    if isinstance(thing, type):
        back = inspect.Signature.empty
    plain = str(signature.replace(parameters=keep, return_annotation=back))
    # quotes belong to annotations as text (left out) or to defaults (kept)
    plain = re.sub(r"(= )?'([^']*)'", lambda at: f'= "{at[2]}"' if at[1] else at[2], plain)
    plain = re.sub(r"(?<![\w.\"])(?:\w+\.)+(?=[A-Z])", "", plain)
    line = f"{name}{plain}"
    if len(line) <= 88:
        return line
    head, rest = line.split("(", 1)
    inside, tail = rest.rsplit(")", 1)
    return f"{head}(\n    {_one_a_line(inside)},\n){tail}"


def _one_a_line(parameters):
    """Break after the commas that stand outside of brackets."""
    out, depth = [], 0
    for sign in parameters:
        depth += (sign in "([{") - (sign in ")]}")
        out.append(",\n   " if sign == "," and depth == 0 else sign)
    return "".join(out)
