"""Fixtures: small data sets on disk."""

import pytest
from data_samples import write_image


@pytest.fixture
def cub_folder(tmp_path):
    """CUB's layout with classes 1 and 3, seven images, one of them grayscale."""
    root = tmp_path / 'CUB_200_2011'
    classes = {1: '001.Black_footed_Albatross', 3: '003.Sooty_Albatross'}
    rows = [(1, 1, 1), (2, 1, 0), (5, 1, 1), (6, 3, 0), (8, 3, 1), (9, 3, 0), (11, 3, 1)]
    lines = {
        name: [] for name in ('images', 'image_class_labels', 'train_test_split', 'bounding_boxes', 'parts/part_locs')
    }
    for image, label, is_train in rows:
        file = f'{classes[label]}/bird_{image}.jpg'
        write_image(root / 'images' / file, mode='L' if image == 6 else 'RGB')
        lines['images'].append(f'{image} {file}')
        lines['image_class_labels'].append(f'{image} {label}')
        lines['train_test_split'].append(f'{image} {is_train}')
        lines['bounding_boxes'].append(f'{image} {image}.0 2.0 10.0 5.5')
        for part in range(1, 16):
            visible = (image + part) % 2
            lines['parts/part_locs'].append(f'{image} {part} {part * visible}.0 {image * visible}.5 {visible}')
    lines['classes'] = [f'{number} {name}' for number, name in classes.items()]
    (root / 'parts').mkdir()
    for name, content in lines.items():
        (root / f'{name}.txt').write_text('\n'.join(content) + '\n')
    return root
