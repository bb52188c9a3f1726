"""OpenAI's and Vercel's clients for Node, in front of providers that speak every dialect. The packages are installed once, into
a folder outside the checkout."""

import pathlib
import shutil
import subprocess

import pytest

from conftest import CACHE
from crossing import KEY, MOCKED

SCRIPTS = pathlib.Path(__file__).parent / "node"
PATIENCE_S = 300


@pytest.fixture(scope="module")
def packages():
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} cannot be found: the clients for Node are not tried")
    folder = CACHE / "node"
    folder.mkdir(exist_ok=True)
    lock, done = SCRIPTS / "package-lock.json", folder / "installed.json"
    if not done.exists() or done.read_text() != lock.read_text():
        for name in ("package.json", lock.name):
            shutil.copy(SCRIPTS / name, folder / name)
        argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
        made = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
        if made.returncode != 0:
            pytest.skip(f"`npm ci` failed, the clients for Node are not tried: {made.stderr[-500:]}")
        shutil.copy(lock, done)
    return folder


@pytest.mark.parametrize("client", ["openai", "ai"])
def test_client(packages, crossing, client):
    script = packages / f"{client}.mjs"
    shutil.copy(SCRIPTS / script.name, script)
    done = subprocess.run(["node", script, crossing.url, KEY, *MOCKED], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("ok") >= len(MOCKED)
