"""Text embeddings of recent prompts: the same prompts come again, the constant ones always."""

from collections.abc import Callable, Collection
from typing import Any

MAX_PROMPTS = 64
"""Prompts kept beside the constant ones. The largest embeddings, klein's, are (1, 512, 7680) in
bfloat16: 7.5 MiB each."""


class EmbeddingCache(dict[str, Any]):
    """Embeddings by their prompts."""

    def __init__(self, constant: Collection[str] = ()) -> None:
        """constant: prompts that are never dropped."""
        super().__init__()
        self._constant = frozenset(constant)

    def of(self, prompt: str, embed: Callable[[str], Any]) -> Any:
        """`embed(prompt)`, computed only if it is not kept."""
        found = self.pop(prompt, None)
        if found is None:
            found = embed(prompt)
            others = [known for known in self if known not in self._constant]
            if len(others) >= MAX_PROMPTS:
                del self[others[0]]  # the least recently used
        self[prompt] = found
        return found
