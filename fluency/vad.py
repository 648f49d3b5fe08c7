"""Voice activity detection: the Silero VAD network, run over a whole recording at once.

The published model is a TorchScript file that takes 32 ms at a time. Its only state is one LSTM, so
here everything before the LSTM runs on all frames as one batch and the LSTM runs on the sequence:
the same numbers (the tests compare them with the TorchScript file) in a small part of the time.
Importing `silero_vad` itself would set torch to one thread for the whole process, so only its
weight file is read.

Source: silero-vad 6.2.3 (MIT), `silero_vad/tinygrad_model.py` for the layers
and `utils_vad.py` for the hysteresis.
"""

from importlib import metadata
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from intensity import HOP, HOP_S
from numpy.typing import NDArray
from torch import Tensor, nn

SAMPLE_RATE_HZ = 16_000
FRAME = 512  # samples: 32 ms, the model's own
FRAME_S = FRAME / SAMPLE_RATE_HZ
_APART = 256  # samples between two frames of `finely`: 16 ms
_CONTEXT = 64  # samples before each frame that it gets too
# Not silero_vad_16k.safetensors in the same folder: that holds older weights.
_WEIGHTS = "silero_vad/data/silero_vad.jit"
_NAMES = {
    "stft_conv.weight": "_model.stft.forward_basis_buffer",
    **{
        f"conv{i + 1}.{kind}": f"_model.encoder.{i}.reparam_conv.{kind}"
        for i in range(4)
        for kind in ("weight", "bias")
    },
    **{
        f"lstm.{kind}_l0": f"_model.decoder.rnn.{kind}"
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    },
    "final_conv.weight": "_model.decoder.decoder.2.weight",
    "final_conv.bias": "_model.decoder.decoder.2.bias",
}

ENTER = 0.5  # silero's default threshold
LEAVE = 0.35  # its neg_threshold: threshold - 0.15
MIN_SPEECH_S = 0.1  # shorter than a syllable is a click (de Jong & Wempe 2009: min. sounding 0.1 s)


class SileroVad(nn.Module):
    """The 16 kHz network of silero-vad 6, as its tinygrad port lays it out."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    @classmethod
    def load(cls) -> "SileroVad":
        """The published weights, from the installed silero-vad distribution."""
        path = metadata.distribution("silero-vad").locate_file(_WEIGHTS)
        published = torch.jit.load(str(path), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
        model = cls()
        model.load_state_dict({ours: published[theirs] for ours, theirs in _NAMES.items()})
        return model.eval()

    @torch.inference_mode()
    def probabilities(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Speech probability of each 32 ms frame. samples: (n,) or (k, n) in [-1, 1] at 16 kHz.

        Returns (ceil(n / 512),) or (k, ceil(n / 512)) float32 in [0, 1]; the last frame is padded
        with zeros.
        """
        count = -(-samples.shape[-1] // FRAME)
        if count == 0:
            return np.zeros((*samples.shape[:-1], 0), np.float32)
        signals = torch.from_numpy(np.atleast_2d(samples))
        padded = F.pad(signals, (_CONTEXT, count * FRAME - signals.shape[-1]))
        frames = padded.unfold(1, FRAME + _CONTEXT, FRAME).flatten(0, 1)
        # 2048 frames are 65 s: a bound on memory, not on the result.
        encoded = torch.cat([self._encode(part) for part in torch.split(frames, 2048)])
        hidden, _ = self.lstm(encoded.reshape(-1, count, 128).transpose(0, 1))
        speech = torch.sigmoid(self.final_conv(F.relu(hidden).flatten(0, 1).unsqueeze(-1)))
        made = speech.reshape(count, -1).T
        return np.asarray(made.reshape(*samples.shape[:-1], count), np.float32)

    def finely(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Speech probability at 10 ms steps. samples: (k, n); returns (k, n // 160 + 1).

        The frames of two runs, the second 16 ms earlier, and straight lines between the middles of
        neighbours. One run at a time: a bound on memory.
        """
        made = []
        for early in range(0, FRAME, _APART):
            made.append(self.probabilities(np.pad(samples, ((0, 0), (early, FRAME - early)))))
        # Of the frames of one number the latest is that of the run without a shift.
        ordered = np.stack(made[::-1], axis=-1).reshape(len(samples), -1)
        middles_s = (
            np.arange(ordered.shape[1]) * _APART - FRAME + _APART + FRAME / 2
        ) / SAMPLE_RATE_HZ
        steps_s = np.arange(samples.shape[-1] // HOP + 1) * HOP_S
        return np.stack([np.interp(steps_s, middles_s, row) for row in ordered]).astype(np.float32)

    def _encode(self, frames: Tensor) -> Tensor:
        """(n, 576) samples to (n, 128) features."""
        x = self.stft_conv(F.pad(frames.unsqueeze(1), (0, _CONTEXT), mode="reflect"))
        magnitude = torch.hypot(x[:, :129], x[:, 129:])
        x = F.relu(self.conv1(magnitude))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        return F.relu(self.conv4(x)).squeeze(-1)


def at_steps(values: NDArray[Any], count: int, step_s: float) -> NDArray[Any]:
    """The values of the VAD's frames at `count` steps of step_s. values: (frames,), not empty."""
    frames = (np.arange(count) * step_s / FRAME_S).astype(int)
    return np.asarray(values[np.minimum(frames, len(values) - 1)])


def speech_mask(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Frames that are speech, with silero's hysteresis: enter at 0.5, leave below 0.35.

    Unlike `get_speech_timestamps` it adds no padding and bridges no gap: `pauses` decides what
    counts as a pause, with the intensity.
    """
    state = np.full(len(probabilities), -1, np.int8)
    state[probabilities >= ENTER] = 1
    state[probabilities < LEAVE] = 0
    known = np.flatnonzero(state >= 0)
    if len(known) == 0:
        return np.zeros(len(probabilities), np.bool_)
    # Each undecided frame repeats the last decided one; before the first, silence.
    last = np.searchsorted(known, np.arange(len(state)), side="right") - 1
    mask: NDArray[np.bool_] = (last >= 0) & (state[known[last]] == 1)
    return mask


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where the mask is true, as half-open index pairs.

    >>> runs(np.array([True, False, True, True]))
    [(0, 1), (2, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
