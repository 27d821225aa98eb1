"""The content of files that measurements write."""

# Key points, of version 0.1.0.
OLD_KEYPOINTS = {
    'dataset': 'birds', 'stage': 'joint', 'keypoint_names': ['beak', 'left eye', 'right eye'], 'image_size': 32,
    'images': 1234, 'without_keypoints': 0, 'unreadable': [],
    'boxes': {
        name: {
            'distance': distance, 'distance_of_part': [1, 2], 'distance_share': 0.1, 'inside': 0.5,
            'nearest': [[0.25, 0.25, 0.5], [0, 1, 0]], 'consistency': 0.5, 'consistency_shuffled': 0.375,
        }
        for name, distance in (('before scale mining', 3.0), ('centre of the image', 4.0))
    },
}  # fmt: skip
