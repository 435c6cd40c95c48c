"""Strings that a client chose, made fit for a log: short, on one line, and not to be taken for anything else."""

#: Characters that a value has in a log line; what is longer ends in an ellipsis.
MAX_SHOWN = 64


def printable(value: object, limit: int = MAX_SHOWN) -> str:
    """The value as text of at most ``limit`` characters, in which all that is not printable is escaped.

    So no line begins in it, and no terminal obeys it: line feeds, escape sequences, and the controls of Unicode that
    turn the direction of text, become ``\\n``, ``\\x1b``, ``\\u202e``. Escapes count for one character.
    """
    text = str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def word(value: object, limit: int = MAX_SHOWN) -> str:
    """The same without spaces, quotes and backslashes, for a line whose fields are apart by spaces; ``-`` for none."""
    text = printable(value, limit) if value is not None and value != "" else "-"
    return text.replace("\\", "\\\\").replace(" ", "\\x20").replace('"', "\\x22").replace("'", "\\x27")
