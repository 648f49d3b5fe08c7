"""What text encoders made of words, kept: the same words come again, the constant ones always."""

from collections.abc import Callable, Collection
from typing import Any

REMEMBERED = 64
"""Words kept beside the constant ones. The largest embeddings, klein's, are (1, 512, 7680) in
bfloat16: 7.5 MiB each."""


class Remembered(dict[str, Any]):
    """Embeddings by their words."""

    def __init__(self, constant: Collection[str] = ()) -> None:
        """constant: words that are never forgotten."""
        super().__init__()
        self._constant = frozenset(constant)

    def of(self, words: str, embed: Callable[[str], Any]) -> Any:
        """What embed(words) gave when they were last unknown."""
        found = self.pop(words, None)
        if found is None:
            found = embed(words)
            others = [known for known in self if known not in self._constant]
            if len(others) >= REMEMBERED:
                del self[others[0]]  # the ones not asked for longest
        self[words] = found
        return found
