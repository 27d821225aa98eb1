"""SSANet on your own images: a folder a class, or a list of files.

Either `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or `CLASS/*.jpg` alone, of which a random fifth of each
class is then held out by `config.data.split_seed`, or a CSV file (docs/datasets.md). The same
EfficientNet-Lite0 at 224 as
`configs/cub.py`, which a laptop trains; its docstring says what to expect of time.

    python -m ssanet_jax.main --config=configs/folder.py --workdir=runs/screws --config.data.dir=screws

    python -m ssanet_jax.main --config=configs/folder.py --workdir=runs/screws --config.data.dir=screws \
        --config.data.csv=screws.csv
"""

from configs import cub


def get_config():
    config = cub.lite0()
    config.data.name = 'folder'
    return config
