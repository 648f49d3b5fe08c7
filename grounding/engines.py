"""Selects the implementation by the variables ENGINE and WEIGHTS."""

import logging
from collections.abc import Mapping

import torch
from coco80 import ClosedSetDetector
from prediction import Engine
from weights import PRESETS, SMALL, Source, resolve

ENGINES = ("transformers", "coco80", "sam3", "groundingdino-py")

_log = logging.getLogger(__name__)


def load_engine(environment: Mapping[str, str]) -> Engine:
    """The engine that ENGINE names, with the weights that WEIGHTS names.

    ENGINE need only be set for groundingdino-py, and for SAM 3 by a hub id: WEIGHTS decides between
    the others. With neither set it is coco80 on a machine without a GPU, or where the default
    weights are neither in the cache nor to be had from the hub.

    Raises ValueError when ENGINE or COMPILE is none of the choices, or WEIGHTS is for another
    engine than ENGINE names.
    """
    get = environment.get
    wanted = get("ENGINE")
    if wanted and wanted not in ENGINES:
        raise ValueError(f"Cannot load: ENGINE must be one of {', '.join(ENGINES)}, got {wanted}")
    if wanted == "groundingdino-py":
        from original import OriginalDetector  # noqa: PLC0415 - needs an environment of its own

        return OriginalDetector(get("WEIGHTS"), get("BERT"), get("DEVICE"))
    compile_wanted = get("COMPILE") or "0"
    if compile_wanted not in ("0", "1"):
        raise ValueError(f"Cannot load: COMPILE must be 0 or 1, got {compile_wanted}")
    source = _source(get("WEIGHTS"), wanted, get("DEVICE"))
    if wanted and wanted != source.engine:
        raise ValueError(
            f"Cannot load: WEIGHTS {source.name} needs ENGINE={source.engine}, got {wanted}"
        )
    if source.engine == "coco80":
        return ClosedSetDetector(get("DEVICE"))
    if source.engine == "sam3":
        from sam3 import Sam3Detector  # noqa: PLC0415 - as below

        return Sam3Detector(source, get("DEVICE"), get("DTYPE"))
    try:
        return _open_vocabulary(source, environment)
    except OSError as error:  # transformers' for a file that is neither in the cache nor online
        if get("WEIGHTS") or wanted:
            raise
        _log.warning("Cannot load %s, using %s instead: %s", source.name, SMALL, error)
        return ClosedSetDetector(get("DEVICE"))


def _source(weights: str | None, engine: str | None, device: str | None) -> Source:
    if weights or not engine:
        on_gpu = device.startswith("cuda") if device else torch.cuda.is_available()
        source = resolve(weights, has_gpu=on_gpu)
        # Only ENGINE tells what a hub id holds.
        is_hub_id = source.location == weights and weights not in PRESETS
        return source._replace(engine="sam3") if is_hub_id and engine == "sam3" else source
    return resolve({"coco80": SMALL, "sam3": "sam3"}.get(engine))


def _open_vocabulary(source: Source, environment: Mapping[str, str]) -> Engine:
    # transformers takes seconds to import, which coco80 does without.
    from model import Detector  # noqa: PLC0415

    backend = "inductor" if environment.get("COMPILE") == "1" else None
    return Detector(source, environment.get("DEVICE"), environment.get("DTYPE"), backend)
