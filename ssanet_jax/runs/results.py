"""The results of a run: what its evaluations found, as objects and as JSON files."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from ssanet_jax.runs.files import DamagedFile, read_json

_LISTED = 3  # unreadable images that a message names


class _JsonObject:
    """Conversion between a dataclass and the JSON object that holds its fields."""

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Builds the object from a JSON object; fields that the class does not have are ignored.

        Raises:
          TypeError: a field is missing.
        """
        names = {field.name for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
        return cls(**{name: value for name, value in content.items() if name in names})

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, in the order in which the file lists them."""
        return dataclasses.asdict(self)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationResult(_JsonObject):
    """Accuracy of a network on one set of images."""

    accuracy: float  # accuracy of the prediction, which sums the logits of all heads
    examples: int  # number of images
    heads: dict[str, float]  # {head: accuracy}
    unreadable: list[str]  # one message per image that could not be read; such an image counts as wrong


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestResult(EvaluationResult):
    """The evaluation of the network that a stage passes on: the content of `<stage>/best.json`."""

    stage: str  # name of the stage; '' in files of early versions
    step: int  # steps of the stage that this network has been trained for

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Builds the object from a JSON object, which may lack the fields that early versions did not write."""
        return super().from_dict({'stage': '', **content})


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageResult(BestResult):
    """The outcome of a finished stage: the content of `<stage>/evaluation.json`."""

    split: str  # the images of the evaluation: 'test' or 'validation'
    epochs: int
    steps: int
    wall_seconds: float
    stopped_early: str = ''  # why the stage ended before its last epoch; '' if it did not

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Builds the object from a JSON object, which may lack the fields that early versions did not write."""
        early = {'unreadable': [], 'split': 'test'}
        if 'steps' in content:
            early['step'] = content['steps']
        return super().from_dict({**early, **content})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunEvaluation(EvaluationResult):
    """The evaluation of a run's network: the content of `evaluation.json` and `test.json` in the work directory."""

    stage: str  # the stage that the network comes from
    dataset: str
    network: str = ''  # `Run.network_digest`; '' in files of earlier versions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResults(_JsonObject):
    """The outcome of a finished run: the content of `results.json`."""

    accuracy: float
    examples: int
    unreadable: list[str]
    heads: dict[str, float]
    stages: dict[str, StageResult]
    seed: int
    wall_seconds: float
    dataset: str
    backbone: str
    pretrained: str
    image_size: int
    device: str
    versions: dict[str, str]


def unreadable_line(
    problems: Sequence[str], examples: int, *, count: int | None = None, treatment: str = 'count as wrong'
) -> str:
    """One line that must accompany every accuracy: how many images could not be read, and the first three of them.

    Args:
      problems: one message per unreadable image; may be empty where only their number is known.
      examples: number of all images.
      count: number of unreadable images; by default that of the messages.
      treatment: what the metric makes of such images: 'count as wrong' or 'are left out'.

    Returns:
      The line; '' if every image could be read.
    """
    count = len(problems) if count is None else count
    if not count:
        return ''
    listed = [*problems[:_LISTED], *['...'] * (len(problems) > _LISTED)]
    named = f': {"; ".join(listed)}' if listed else ''
    return f'{count} of {examples} images cannot be read and {treatment}{named}'


Result = TypeVar('Result', bound=EvaluationResult)


def read_result(path: Path, kind: type[Result], cure: str) -> Result | None:
    """Reads a result from its JSON file.

    Args:
      path: the file.
      kind: class of the result.
      cure: what to do about a damaged file, for the error message.

    Returns:
      The result, or None if the file does not exist.

    Raises:
      DamagedFile: the file lacks a field, or has one of another kind.
      UserError: the file cannot be read.
    """
    content = read_json(path, cure)
    if content is None:
        return None
    try:
        result = kind.from_dict(content)
    except TypeError as error:
        raise DamagedFile(f'{path} is damaged, a field is missing', cure) from error
    for name, wanted in get_type_hints(kind).items():
        if not _fits(getattr(result, name), wanted):
            raise DamagedFile(f'{path} is damaged, {name} is not of its kind', cure)
    if not 0 <= result.accuracy <= 1:
        raise DamagedFile(f'{path} is damaged, the accuracy is {result.accuracy}', cure)
    return result


StageFile = TypeVar('StageFile', bound=BestResult)


def read_stage_result(path: Path, kind: type[StageFile], stage: str, cure: str) -> StageFile | None:
    """Reads a result of a stage as `read_result` does.

    Raises:
      DamagedFile: also if the result is that of another stage.
    """
    result = read_result(path, kind, cure)
    if result is not None and result.stage not in (stage, ''):
        raise DamagedFile(f'{path} is that of stage {result.stage}', cure)
    return result


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value from a JSON file has the type of a field."""
    arguments = get_args(kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float('inf')
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
