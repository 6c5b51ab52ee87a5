"""LeRobot datasets; `layout` is what the registry finds here."""

from foreframe.data.layouts.lerobot.layout import DESCRIBE, LOOKS_FOR, NAME, SPARE, TAKES, example, recognises, survey

__all__ = ["DESCRIBE", "LOOKS_FOR", "NAME", "SPARE", "TAKES", "example", "recognises", "survey"]
