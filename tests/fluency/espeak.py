"""espeak-ng as a library, from the wheel that ships it: no program needs to be installed."""

import ctypes
from functools import cache
from typing import Final

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

_SYNCHRONOUS: Final = 2  # espeak_AUDIO_OUTPUT: AUDIO_OUTPUT_SYNCHRONOUS
_RATE: Final = 1  # espeak_PARAMETER: espeakRATE, words per minute
_UTF8: Final = 1  # espeakCHARS_UTF8
_CALLBACK: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@cache
def _library() -> tuple[ctypes.CDLL, int]:
    """The library, started once in the process, and its sampling rate in Hz."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    rate_hz = int(library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0))
    assert rate_hz > 0, "espeak-ng did not start"
    return library, rate_hz


def synthesise(text: str, words_per_minute: int, voice: str) -> tuple[NDArray[np.float32], int]:
    """Speech in -1..1, and its sampling rate in Hz."""
    library, rate_hz = _library()
    parts: list[NDArray[np.int16]] = []

    @_CALLBACK
    def take(wav: "ctypes._Pointer[ctypes.c_short]", count: int, events: object) -> int:
        if wav and count > 0:
            parts.append(np.ctypeslib.as_array(wav, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(take)
    assert library.espeak_SetVoiceByName(voice.encode()) == 0, f"no voice {voice}"
    library.espeak_SetParameter(_RATE, words_per_minute, 0)
    said = text.encode()
    assert library.espeak_Synth(said, len(said) + 1, 0, 0, 0, _UTF8, None, None) == 0
    library.espeak_Synchronize()
    return np.concatenate(parts).astype(np.float32) / 32768, rate_hz
