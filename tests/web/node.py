"""Runs modules of the page with Node.js."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT

PAGE = ROOT / 'ssanet_jax' / 'web' / 'page'


def run_with_node(folder: Path, script: str, given: Any = None) -> Any:
    """Runs a script in a folder with a copy of the page, and returns its result.

    Args:
      folder: an empty folder.
      script: the body of an asynchronous function of `given`, after its imports. Its value must be plain.
      given: a plain value.
    """
    program = shutil.which('node')
    if program is None:
        pytest.skip('needs Node.js')
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    (folder / 'package.json').write_text('{"type": "module"}')
    imports = [line for line in script.splitlines() if line.startswith('import ')]
    body = '\n'.join(line for line in script.splitlines() if not line.startswith('import '))
    (folder / 'script.js').write_text(
        '\n'.join(imports)
        + "\nimport { readFileSync as readStdin } from 'node:fs';"
        + f'\nconst run = async (given) => {{\n{body}\n}};'
        + "\nconsole.log(JSON.stringify((await run(JSON.parse(readStdin(0, 'utf8')))) ?? null));\n"
    )
    done = subprocess.run(
        [program, 'script.js'], cwd=folder, input=json.dumps(given), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
