"""Selects the implementation by the variable ENGINE."""

from collections.abc import Mapping

from prediction import Engine
from weights import resolve

ENGINES = ("transformers", "groundingdino-py")


def load_engine(environment: Mapping[str, str]) -> Engine:
    """The engine that ENGINE names, with the weights that WEIGHTS names.

    DEVICE, DTYPE and COMPILE as in the README. The imports are local because the two engines need
    different versions of transformers, and an environment has only one.

    Raises ValueError when ENGINE or COMPILE is none of the choices.
    """
    get = environment.get
    wanted = get("ENGINE") or ENGINES[0]
    if wanted not in ENGINES:
        raise ValueError(f"Cannot load: ENGINE must be one of {', '.join(ENGINES)}, got {wanted}")
    if wanted == "groundingdino-py":
        from original import OriginalDetector  # noqa: PLC0415

        return OriginalDetector(get("WEIGHTS"), get("BERT"), get("DEVICE"))
    compile_wanted = get("COMPILE") or "0"
    if compile_wanted not in ("0", "1"):
        raise ValueError(f"Cannot load: COMPILE must be 0 or 1, got {compile_wanted}")
    from model import Detector  # noqa: PLC0415

    backend = "inductor" if compile_wanted == "1" else None
    return Detector(resolve(get("WEIGHTS")), get("DEVICE"), get("DTYPE"), backend)
