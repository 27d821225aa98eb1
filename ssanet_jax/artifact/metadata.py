"""What an exported network says about itself (`docs/export.md`)."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ssanet_jax.data.preprocessing import INTERPOLATIONS, InputSettings
from ssanet_jax.errors import UserError

FORMAT = 1  # of the metadata and the outputs
PREFIX = 'ssanet_jax.'
CHECKSUM = f'{PREFIX}checksum'


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How predictions are judged, from held-out images."""

    temperature: float  # the probabilities are the softmax of logits / temperature
    novelty_limit: float  # from this novelty on, an image may show none of the classes
    score_limit: float  # below this probability, the class is more likely wrong than right


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the outputs about parts mean."""

    num_parts: int  # K
    heads: tuple[str, ...]  # the heads that read parts, in the order of `part_logits`
    scales: tuple[float, ...]  # the factors that scale mining chooses from, ascending
    orientations: tuple[str, ...]  # names of the orientations, by index


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where the network comes from."""

    version: str  # of this package
    run: str  # name of the work directory
    digest: str  # SHA-256 of weights, settings, classes and held-out predictions
    weights: str  # type of the weights in the file
    config: Mapping[str, Any]  # of the run
    checked_on: str  # the images on which the file was compared with JAX


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The metadata of an exported network."""

    class_names: tuple[str, ...]
    preprocessing: InputSettings
    calibration: Calibration | None  # None for a run without held-out images
    parts: Parts
    provenance: Provenance
    license: str  # SPDX identifier of the license of the pretrained weights; '' if unknown

    def to_values(self) -> dict[str, Any]:
        """The metadata as values of JSON."""
        return {'format': FORMAT} | dataclasses.asdict(self)

    def to_entries(self) -> dict[str, str]:
        """The entries of an ONNX file, without the checksum."""
        return {f'{PREFIX}{name}': json.dumps(value) for name, value in self.to_values().items()}


def parse_entries(entries: Mapping[str, str]) -> Metadata:
    """Reads the entries of an ONNX file. They may be anybody's.

    Raises:
      UserError: they are not those of an exported network, or of a later version. The message lacks the file.
    """
    if f'{PREFIX}format' not in entries:
        raise UserError('it lacks the metadata that ssanet export writes')
    with _damage_as_user_error():
        return _parse({key.removeprefix(PREFIX): json.loads(entries[key]) for key in entries if key != CHECKSUM})


def parse_document(document: bytes) -> Metadata:
    """Reads a JSON object of `Metadata.to_values`. It may be anybody's.

    Raises:
      UserError: as `parse_entries`.
    """
    with _damage_as_user_error():
        return _parse(json.loads(document))


@contextlib.contextmanager
def _damage_as_user_error() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f'its metadata are damaged ({type(error).__name__}: {error})') from error


def _parse(values: Mapping[str, Any]) -> Metadata:
    if values['format'] != FORMAT:
        raise UserError(f'its format is {values["format"]!r}, and this version reads {FORMAT}')
    return _check(
        Metadata(
            class_names=tuple(values['class_names']),
            preprocessing=InputSettings(**values['preprocessing']),
            calibration=None if values['calibration'] is None else Calibration(**values['calibration']),
            parts=_parse_parts(**values['parts']),
            provenance=Provenance(**values['provenance']),
            license=values['license'],
        )
    )


def _parse_parts(num_parts: int, heads: list[str], scales: list[float], orientations: list[str]) -> Parts:
    return Parts(num_parts, tuple(heads), tuple(scales), tuple(orientations))


def _check(metadata: Metadata) -> Metadata:
    """Raises ValueError unless every value is one that an export can have."""
    inputs, calibration, parts = metadata.preprocessing, metadata.calibration, metadata.parts
    _require(len(metadata.class_names) > 0 and _all(str, metadata.class_names), 'class_names')
    _require(_all(int, (inputs.image_size, inputs.resize, inputs.bit_depth)), 'preprocessing')
    _require(1 <= inputs.image_size <= inputs.resize <= 1 << 14 and 0 <= inputs.bit_depth <= 16, 'preprocessing')
    _require(inputs.interpolation in INTERPOLATIONS and isinstance(inputs.shrink, bool), 'preprocessing')
    if calibration is not None:
        numbers = dataclasses.astuple(calibration)
        _require(_all((int, float), numbers) and all(math.isfinite(x) and x >= 0 for x in numbers), 'calibration')
        _require(calibration.temperature > 0, 'calibration')
    _require(isinstance(parts.num_parts, int) and 0 <= parts.num_parts <= 1 << 10, 'parts')
    _require(_all(str, parts.heads) and _all(str, parts.orientations) and _all((int, float), parts.scales), 'parts')
    return metadata


def _require(condition: bool, field: str) -> None:
    if not condition:
        raise ValueError(field)


def _all(kind: type | tuple[type, ...], values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
