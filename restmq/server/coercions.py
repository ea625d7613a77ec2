"""Functions that check and convert values of command-line options. Their ValueErrors say which values are valid."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A coercion for whole numbers within bounds."""

    def coerce(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else least - 1
        if not least <= number <= most:
            raise ValueError(f"give a whole number from {least} to {most}")
        return number

    return coerce


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < 86400:
        raise ValueError("give a number of seconds between 0 and 86400")
    return number


def ip_address(text: str) -> str:
    return str(ipaddress.ip_address(text))


class OneWord:
    """A coercion for one of some words, which completion of the command line offers."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        if text not in self.words:
            raise ValueError(f"give {', '.join(self.words[:-1])} or {self.words[-1]}")
        return text
