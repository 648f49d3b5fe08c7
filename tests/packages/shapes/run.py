"""A model whose output has the shape that it is asked for: what a page must bear."""

from typing import Any

from cog import BaseRunner, Input

LONG = "a_label_that_nobody_should_give_to_anything_but_somebody_always_does_" * 4
# A greeting in Arabic and one in Hebrew, and a text that wants to be markup.
ARABIC = "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 2026!"
HEBREW = "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd (1)"
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"

SHAPES: dict[str, Any] = {
    "nothing": None,
    "no text": "",
    "no list": [],
    "no object": {},
    "zero": 0,
    "no": False,
    "a number": -1.23456789e-7,
    "a large number": 2**60,
    "a word": "word",
    "markup": MARKUP,
    "numbers": [1, 2.5, -3],
    "many numbers": list(range(5000)),
    "nested": [[1, [2, {"a": [3]}]], [], {}],
    "mixed": [1, "two", None, {"three": 3}, [4]],
    "deep": {"a": {"b": {"c": {"d": {"e": [LONG]}}}}, "z": None},
    "odd names": {"": 1, "a/b~c": 2, "__proto__x": {"constructor": 3}, LONG: LONG},
    "right to left": {"greeting": ARABIC, "lines": [ARABIC, HEBREW], "text": f"{HEBREW}\n" * 20},
    "ragged table": [{"a": 1}, {"b": [1, 2]}, {"c": {"d": LONG}}, {}],
    "wide table": [{f"column_{i}": i for i in range(60)} for _ in range(300)],
    "odd boxes": [
        {"box": [0, 0, 0, 0], "label": "", "score": 0.5},
        {"box": [-50, -50, 9000, 9000], "label": LONG, "score": 1.5},
        {"box": [90, 90, 10, 10], "label": None, "score": -1},
        {"box": [5, 5, 60, 60], "label": ARABIC, "score": 0.2},
    ],
    "500 boxes": [
        {
            "box": [i % 25 * 30, i // 25 * 20, i % 25 * 30 + 40, i // 25 * 20 + 30],
            "label": f"thing number {i}",
            "score": i / 500,
        }
        for i in range(500)
    ],
    "odd times": {
        "words": [
            {"start": 0, "end": 0, "text": ""},
            {"start": 5, "end": 2, "text": LONG},
            {"start": -1, "end": 1e6, "text": HEBREW},
        ]
    },
    "5000 times": [{"start": i / 10, "end": i / 10 + 0.05} for i in range(5000)],
    "3 MB of text": "so much depends upon " * 150_000,
    "3 MB in one word": {"text": "x" * 3_000_000},
    "3 MB of base64": {"image": "data:image/png;base64," + "A" * 3_000_000},
    "3 MB of objects": [{"id": i, "name": f"name {i}", "about": LONG} for i in range(9000)],
    "files of elsewhere": [
        "https://example.com/a.png",
        "file:///etc/passwd",
        "javascript:alert(3)",
    ],
}


class Runner(BaseRunner):
    """Answers with one of them."""

    def run(
        self,
        shape: str = Input(description="Which", default="nothing", choices=list(SHAPES)),
        image: str = Input(description="Not looked at", default=""),
    ) -> Any:
        """Return it."""
        return SHAPES[shape]
