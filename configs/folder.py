"""SSANet on your own images: a folder with one sub-folder a class.

Either `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or `CLASS/*.jpg` alone, of which every fifth image
is then held out by `config.data.split_seed`. The same EfficientNet-Lite0 at 224 as
`configs/cub.py`, which a laptop trains; its docstring says what to expect of time.

    python -m ssanet_jax.main --config=configs/folder.py --workdir=runs/screws --config.data.dir=screws
"""

from configs import cub


def get_config():
    config = cub.lite0()
    config.data.name = 'folder'
    config.data.split_seed = 0
    return config
