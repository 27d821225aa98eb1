"""The model card of a run: what its network was trained on, how good it is, and where it should not be trusted."""

import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import scipy.special

from ssanet_jax import __version__
from ssanet_jax.artifact.metadata import Metadata
from ssanet_jax.data.registry import read_listing
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.calibration import expected_calibration_error
from ssanet_jax.evaluation.novelty import MIN_IMAGES
from ssanet_jax.evaluation.prediction import UNSURE_LIMITS
from ssanet_jax.pretrained.checkpoint_info import CHECKPOINTS, default_checkpoint, license_notice
from ssanet_jax.pretrained.hub import HUB
from ssanet_jax.report.measurement_sections import read_measurements
from ssanet_jax.report.result_files import RunSummary, read_summary
from ssanet_jax.report.run_sections import confidence_interval
from ssanet_jax.runs.evaluation_count import num_test_evaluations
from ssanet_jax.runs.files import RESULTS_FILE, TRAIN_AGAIN, read_json
from ssanet_jax.runs.held_out import HeldOutPredictions
from ssanet_jax.runs.run import Run

CARD_FILE = 'README.md'
_LISTED = 200  # classes that the card names
_MARK = '<!-- ssanet push wrote the text above: sha256 '  # of it
_SPECIAL = re.compile(r'([\\`*_{}\[\]<>#|~&!])')


class Calibration(NamedTuple):
    """How far the probabilities can be believed, in numbers from held-out images."""

    images: int
    source: str
    temperature: float
    error: float  # expected calibration error, percentage points
    knows_strangers: bool  # whether there are enough images to tell what is unlike them
    low: float  # percentage of the images whose class has less than `UnsureLimits.score`


def write_model_card(
    run: Run, workdir: Path, metadata: Metadata, repository: str, license_id: str, pictures: bool
) -> str:
    """Writes the card of a finished run, with the YAML header that the hub reads.

    Args:
      run: the run.
      workdir: its work directory.
      metadata: of its exported network.
      repository: 'OWNER/NAME'.
      license_id: the license of the uploaded files, as the hub names it; '' if the author has not chosen one.
      pictures: whether the picture of the parts is uploaded, too.

    Raises:
      UserError: a file of the run is damaged.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # takes most of a second

    result = read_summary(workdir / RESULTS_FILE, RunSummary)
    dataset = (read_json(workdir / RESULTS_FILE, TRAIN_AGAIN) or {}).get('dataset')
    if result is None or not isinstance(dataset, str):
        raise UserError(f'{workdir / RESULTS_FILE} lacks the name of the data set: {TRAIN_AGAIN}')
    source = str(metadata.provenance.config['model'].get('pretrained') or '')
    source = source or default_checkpoint(run.config.model.backbone)
    low, high = confidence_interval(result.accuracy, result.examples)
    data = ModelCardData(
        model_name=repository.partition('/')[2],
        library_name='ssanet_jax',
        pipeline_tag='image-classification',
        license=license_id or None,
        base_model=source.removeprefix(HUB).partition('@')[0] if source.startswith(HUB) else None,
        tags=['image-classification', 'fine-grained', 'ssanet', 'jax', 'onnx'],
        eval_results=[
            EvalResult(
                task_type='image-classification',
                dataset_type=re.sub(r'[^\w.-]+', '_', dataset) or 'images',
                dataset_name=dataset,
                dataset_split='test',
                metric_type='accuracy',
                metric_value=round(result.accuracy, 4),
            )
        ],
    )
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters['md'] = escape_markdown
    template = resources.files('ssanet_jax.push').joinpath('model_card.md.j2').read_text('utf-8')
    robustness = read_measurements(workdir).get('robustness')
    body = environment.from_string(template).render(
        repository=repository,
        run=run,
        metadata=metadata,
        version=__version__,
        accuracy=f'{100 * result.accuracy:.1f}',
        low=f'{100 * low:.1f}',
        high=f'{100 * high:.1f}',
        result=result,
        dataset=dataset,
        training_images=_count_training_images(run),
        evaluations=num_test_evaluations(workdir),
        names=metadata.class_names[:_LISTED],
        calibration=_calibration(run.held_out),
        limits=UNSURE_LIMITS,
        robustness=_robustness(robustness),
        robustness_images=robustness['examples'] if robustness else 0,
        source=source,
        source_url=_url(source),
        notice=license_notice(source),
        license=license_id,
        pictures=pictures,
    )
    content = str(ModelCard(f'---\n{data.to_yaml()}\n---\n{body}'))
    return f'{content}{_MARK}{_digest(content)} -->\n'


def is_unedited(card: str) -> bool:
    """Whether a card is as `write_model_card` wrote it, so that a new one may replace it."""
    text, mark, end = card.rpartition(_MARK)
    return bool(mark) and end.strip().removesuffix(' -->') == _digest(text)


def escape_markdown(text: object) -> str:
    """Text, such as the name of a folder, that means itself in Markdown and HTML, in one line."""
    return _SPECIAL.sub(r'\\\1', ' '.join(str(text).encode('utf-8', 'replace').decode().split()))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _calibration(held_out: HeldOutPredictions | None) -> Calibration | None:
    if held_out is None:
        return None
    logits = held_out.log_probabilities.astype(np.float32) / held_out.temperature
    probabilities = scipy.special.softmax(logits, axis=-1)
    confidence = probabilities.max(-1)
    correct = probabilities.argmax(-1) == held_out.labels
    images = len(held_out.labels)
    return Calibration(
        images=images,
        source='training images, in folds' if held_out.split == 'train' else 'validation images',
        temperature=held_out.temperature,
        error=100 * expected_calibration_error(confidence, correct),
        knows_strangers=images >= MIN_IMAGES,
        low=100 * float((confidence < UNSURE_LIMITS.score).mean()),
    )


def _robustness(measured: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Rows of the table: what was done to the images, the accuracy, and the points lost."""
    if not measured:
        return []
    return [
        (name, f'{100 * accuracy:.1f}', f'{measured["drop"].get(name, 0):.1f}')
        for name, accuracy in measured['accuracy'].items()
    ]


def _count_training_images(run: Run) -> int | None:
    """The number of training images, those for validation included; None if the data set is not here."""
    data = run.config.data
    if data.get('name') == 'toy_birds':
        return data.train_count
    try:
        return sum(record.split == 'train' for record in read_listing(data, run.class_names).records)
    except UserError:
        in_folds = run.held_out is not None and run.held_out.split == 'train'
        return len(run.held_out.labels) if in_folds and run.held_out else None


def _url(source: str) -> str:
    if source.startswith(HUB):
        return f'https://huggingface.co/{source.removeprefix(HUB).partition("@")[0]}'
    known = CHECKPOINTS.get(source)
    return known.url if known else ''
