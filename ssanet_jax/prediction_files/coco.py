"""Parts as detections in the format of COCO (https://cocodataset.org/#format-data).

One file with `images`, `categories` (the parts) and `annotations` (their boxes). Coordinates are those of the image
after its EXIF orientation. Parts have no scores of their own, so annotations have none.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from ssanet_jax.prediction_files.journal import Record


def write(file: TextIO, records: Iterable[Record], network: str) -> None:
    """Writes every image that could be read, and its parts that are to be seen in it."""
    info = {'description': f'Parts found by {network}', 'version': '1.0'}
    file.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"images": [')
    num_parts = 0
    images = _readable(records)
    for number, (image_id, record, line) in enumerate(images):
        image = {'id': image_id, 'file_name': record.file, 'width': record.width, 'height': record.height}
        file.write(_item(image, number))
        num_parts = max(num_parts, len(line['boxes']))
    categories = [{'id': part, 'name': f'part {part}', 'supercategory': 'part'} for part in range(1, num_parts + 1)]
    file.write(f'],\n"categories": {json.dumps(categories)},\n"annotations": [')
    for number, annotation in enumerate(_annotations(records)):
        file.write(_item(annotation | {'id': number + 1}, number))
    file.write(']}\n')


def _item(content: dict[str, Any], number: int) -> str:
    return (',\n' if number else '\n') + json.dumps(content)


def _readable(records: Iterable[Record]) -> Iterator[tuple[int, Record, Any]]:
    """Number, from 1, record and JSON line of each image that could be read."""
    readable = ((record, record.line) for record in records if record.line is not None)
    for number, (record, line) in enumerate(readable, 1):
        yield number, record, line


def _annotations(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """The parts within each image. Parts that are not to be seen, or lie outside of the image, have no annotation."""
    for image_id, record, line in _readable(records):
        present = line.get('present') or [True] * len(line['boxes'])
        for part, (box, is_present) in enumerate(zip(line['boxes'], present), 1):
            y0, x0, y1, x1 = box
            x, y = min(max(x0, 0), record.width), min(max(y0, 0), record.height)
            width, height = round(min(x1, record.width) - x, 2), round(min(y1, record.height) - y, 2)
            if is_present and width > 0 and height > 0:
                yield {
                    'image_id': image_id,
                    'category_id': part,
                    'bbox': [x, y, width, height],
                    'area': round(width * height, 2),
                    'iscrowd': 0,
                    'segmentation': [],
                }
