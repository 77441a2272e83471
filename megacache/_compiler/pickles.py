"""Read single attributes out of what PyTorch has pickled, opcode by opcode: nothing is built, and nothing runs."""

import pickletools
from collections.abc import Iterator, Mapping

TEXTS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
_REFERENCES = frozenset({"BINGET", "LONG_BINGET"})


def attribute_texts(content: bytes, attribute: str) -> Iterator[str]:
    """Give the value of each attribute of a name, in all objects; an empty text for None.

    Raises `ValueError` if one is something else, or if all is written in another way than is known here.
    """
    # Pickle writes a text once, and then refers to it by its number among all that it has noted.
    texts: dict[int, str | None] = {}
    text, is_value = None, False
    for operation, value, _ in pickletools.genops(content):
        if operation.name == "MEMOIZE":
            texts[len(texts)] = text
        elif operation.name != "FRAME":  # it may stand anywhere, and means nothing
            text = _text(operation.name, value, texts)
            if is_value and text is None:
                msg = f"{attribute} is not a text"
                raise ValueError(msg)
            if is_value:
                yield str(text)
            is_value = not is_value and text == attribute


def _text(operation: str, value: object, texts: Mapping[int, str | None]) -> str | None:
    if operation in TEXTS:
        return str(value)
    if operation in _REFERENCES and isinstance(value, int):
        return texts.get(value)
    return "" if operation == "NONE" else None
