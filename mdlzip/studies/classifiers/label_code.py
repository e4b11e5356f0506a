"""Description length of a classifier: the labels given the network, and the network in bytes.

A network becomes a blob: per tensor its shape and step, then one stream of the weight coder of
the archives, then the running statistics of batch norms as float32. Names are not stored: who
decodes knows the architecture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdlzip.archive.cursor import Cursor, put_varint
from mdlzip.coding.weight_model import WeightDecoder, WeightEncoder
from mdlzip.errors import CorruptArchive
from mdlzip.networks.spec import NO_AXIS, BandKind, BandSpec, code_limit
from mdlzip.studies.classifiers.datasets import Source
from mdlzip.studies.classifiers.training import EVALUATION_BATCH

SHARES = (0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5)
"""Steps that are tried, as shares of the root mean square of a tensor's non-zero weights."""
NORM_SHARE = 0.1  # gains and shifts of a norm vary little around their mean: finer by this
STEPS_PER_OCTAVE = 8  # a step is 2**(k / 8), k one signed byte
IMAGE_ROW = 28  # pixels: the weight of the pixel above is this many rows back


class Stored(NamedTuple):
    """A tensor as it is coded: the codes' shape, and which rows and columns are the same units.

    turned: matrices of linear layers are stored [inputs, outputs]; band: see `BandSpec`.
    """

    name: str
    shape: tuple[int, ...]
    turned: bool
    norm: bool
    band: BandSpec


class Coded(NamedTuple):
    """The blob and the share of the rms that its steps were made from."""

    data: bytes
    share: float


@torch.no_grad()
def label_bits(model: nn.Module, source: Source) -> float:
    """-log2 p(label) summed over `source`, the network in evaluation mode; the mode is put back."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    nats = 0.0
    for images, labels in source.batches(EVALUATION_BATCH):
        logits = model(images.to(device)).double()
        nats += float(F.cross_entropy(logits, labels.to(device), reduction="sum"))
    model.train(training)
    return nats / math.log(2)


# --- layout ---------------------------------------------------------------------------------------


def layout(model: nn.Module) -> list[Stored]:
    """The parameters in coding order: last layer first, whose dead inputs tell of dead outputs."""
    stored: list[Stored] = []
    before, width = "", 0
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d, nn.BatchNorm2d)):
            continue
        shape: tuple[int, ...]
        if isinstance(module, nn.BatchNorm2d):
            for kind, last in ((BandKind.GAIN, "weight"), (BandKind.BIAS, "bias")):
                band = BandSpec(0, 1, kind, NO_AXIS, before)
                shape = (module.num_features,)
                stored.append(Stored(f"{name}.{last}", shape, False, True, band))
            continue
        outputs, inputs = module.weight.shape[:2]
        units = f"units of {name}"
        if isinstance(module, nn.Linear):
            fed = before if inputs == width else ""
            far = IMAGE_ROW if inputs == IMAGE_ROW**2 else 0
            band = BandSpec(0, inputs, BandKind.UP, fed, units, far)
            stored.append(Stored(f"{name}.weight", (inputs, outputs), True, False, band))
        else:
            shape = (outputs, module.weight[0].numel())
            band = BandSpec(0, outputs, BandKind.CONV, units, NO_AXIS)
            stored.append(Stored(f"{name}.weight", shape, False, False, band))
        if module.bias is not None:
            band = BandSpec(0, 1, BandKind.BIAS, NO_AXIS, units)
            stored.append(Stored(f"{name}.bias", (outputs,), False, False, band))
        before, width = units, outputs
    return stored[::-1]


# --- rounding -------------------------------------------------------------------------------------


def step_of(exponent: int) -> float:
    """The step that the byte `exponent` (-128..127) stands for, in units of the weights."""
    return float(2.0 ** (exponent / STEPS_PER_OCTAVE))


def choose_step(values: np.ndarray, share: float, limit: int) -> int:
    """Exponent of the step nearest `share` times the rms of the non-zeros, no code above `limit`.

    0 for a tensor of zeros. Weights so large or small that no byte fits are cut off at the limit.
    """
    alive = values[values != 0].astype(np.float64)
    if not alive.size:
        return 0
    wanted = share * math.sqrt(float(np.square(alive).mean()))
    least = float(np.abs(alive).max()) / (limit + 0.49)
    exponent = round(STEPS_PER_OCTAVE * math.log2(max(wanted, least)))
    if step_of(exponent) < least:
        exponent += 1
    return min(max(exponent, -128), 127)


def _matrix(param: Tensor, stored: Stored) -> np.ndarray:
    """The weights as they are coded, float32."""
    values = param.detach().float().cpu()
    return (values.T if stored.turned else values).reshape(stored.shape).numpy()


def pack_network(model: nn.Module, share: float) -> bytes:
    """The blob of `model`, its weights rounded to steps of `share` times each tensor's rms."""
    params = dict(model.named_parameters())
    head, tensors = bytearray(), []
    plans = layout(model)
    for stored in plans:
        values, limit = _matrix(params[stored.name], stored), code_limit(stored.shape)
        exponent = choose_step(values, share * (NORM_SHARE if stored.norm else 1), limit)
        codes = np.clip(np.rint(values / step_of(exponent)), -limit, limit).astype(np.int8)
        head += bytes([len(stored.shape)]) + b"".join(put_varint(n) for n in stored.shape)
        head += exponent.to_bytes(1, signed=True)
        tensors.append((stored.band, codes))
    encoder = WeightEncoder()
    for band, codes in tensors:
        encoder.encode((band,), codes)
    stream = encoder.finish()
    return bytes(head) + put_varint(len(stream)) + stream + b"".join(_statistics(model))


def _statistics(model: nn.Module) -> Iterator[bytes]:
    for _, buffer in _running(model):
        yield buffer.detach().float().cpu().numpy().astype("<f4").tobytes()


def _running(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Running means and variances; not the count of batches, which nothing depends on."""
    return [(n, b) for n, b in model.named_buffers() if b.is_floating_point()]


def unpack_network(blob: bytes, model: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics from the blob of a network of the architecture of `model`.

    Nothing of `model` but its shapes is read. Raises CorruptArchive where the blob does not fit;
    a damaged stream may decode to other weights.
    """
    cursor, plans = Cursor(blob, "coded network"), layout(model)
    exponents = {}
    for stored in plans:
        n_axes = cursor.u8(f"axes of {stored.name}")
        shape = tuple(cursor.varint(f"shape of {stored.name}") for _ in range(min(n_axes, 3)))
        if shape != stored.shape:
            raise cursor.fail(f"shape of {stored.name}", f"is {shape}, not {stored.shape}")
        exponents[stored.name] = int.from_bytes(cursor.take(1, "step"), signed=True)
    stream = cursor.take(cursor.varint("length of the stream"), "coded weights")
    decoder = WeightDecoder(stream)
    out: dict[str, Tensor] = {}
    params = dict(model.named_parameters())
    for stored in plans:
        codes = decoder.decode((stored.band,), stored.shape)
        values = torch.from_numpy(codes.astype(np.float32)) * step_of(exponents[stored.name])
        shape = params[stored.name].shape
        out[stored.name] = values.T.contiguous() if stored.turned else values.view(shape)
    for name, buffer in _running(model):
        raw = np.frombuffer(cursor.take(4 * buffer.numel(), name), "<f4").astype(np.float32)
        out[name] = torch.from_numpy(raw).view(buffer.shape)
    cursor.finish()
    return out


def load(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Write what `unpack_network` gave into `model`."""
    state = model.state_dict()
    for name, tensor in tensors.items():
        state[name].copy_(tensor)


def best_code(
    model: nn.Module,
    labels: Sequence[Source],
    on_progress: Callable[[str, float, float, str], None],
) -> Coded:
    """The blob with the least bytes for network and labels together, of the steps in SHARES.

    labels: what is to be coded; on_progress: as in `Trainer`. The steps grow until the total has
    risen twice. Every blob is decoded again and compared with the rounded weights, all label
    bytes are those of the decoded ones; the model holds those of the best blob at the end.
    """
    exact = {name: value.detach().clone() for name, value in model.state_dict().items()}
    best: tuple[float, Coded, dict[str, Tensor]] | None = None
    risen = 0
    for i, share in enumerate(SHARES):
        blob = pack_network(model, share)
        tensors = unpack_network(blob, model)
        _check_codes(model, tensors, share)
        load(model, tensors)
        total = len(blob) + sum(label_bits(model, source) for source in labels) / 8
        model.load_state_dict(exact)
        on_progress("code", i + 1, len(SHARES), f"{len(blob):,} bytes of network")
        if best is None or total < best[0]:
            best, risen = (total, Coded(blob, share), tensors), 0
        else:
            risen += 1
            if risen == 2:
                break
    assert best is not None
    load(model, best[2])
    return best[1]


def _check_codes(model: nn.Module, tensors: dict[str, Tensor], share: float) -> None:
    """Raise CorruptArchive unless every decoded weight is the rounded original, bit for bit."""
    params = dict(model.named_parameters())
    for stored in layout(model):
        values, limit = _matrix(params[stored.name], stored), code_limit(stored.shape)
        step = step_of(choose_step(values, share * (NORM_SHARE if stored.norm else 1), limit))
        rounded = np.clip(np.rint(values / step), -limit, limit).astype(np.float32)
        if not np.array_equal(rounded * np.float32(step), _matrix(tensors[stored.name], stored)):
            raise CorruptArchive(f"{stored.name}: does not decode to what was coded")
