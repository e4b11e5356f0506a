"""Make the golden archives and their digests: `python tests/golden/make_golden.py`.

Archives of a released format version are kept for ever and never made anew; a change of the format
gets a new version and new files beside the old ones. Everything comes from seeds.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

import numpy as np  # noqa: E402

from mdlzip import codec  # noqa: E402
from mdlzip.codec.options import CompressOptions  # noqa: E402
from mdlzip.quantised.selftest import CONFIGS, random_network  # noqa: E402
from mdlzip.symbols.learn import learn_merges  # noqa: E402
from mdlzip.symbols.survey import present_in  # noqa: E402
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of  # noqa: E402

VERSION = 1
TEXT = " ".join(f"{n} green bottles hanging on the wall," for n in range(200)).encode()


def cases() -> dict[str, tuple[bytes, dict[str, object]]]:
    """Name -> (original bytes, arguments of `codec.compress`).

    The networks predict what `TEXT` holds, but "learned-paper" all byte values.
    """
    small = {"options": CompressOptions(chunk_size=64, group_chunks=4, fallback=False)}
    letters = alphabet_of(present_in(TEXT))
    ours = small | {"network": replace(random_network(CONFIGS[0]), vocabulary=Vocabulary(letters))}
    merges = learn_merges(np.frombuffer(TEXT, np.uint8), 20, 2, 1.0, 16)
    strings = random_network(replace(CONFIGS[0], n_merges=len(merges)))
    merged = small | {"network": replace(strings, vocabulary=Vocabulary(letters, merges))}
    paper = small | {"network": random_network(CONFIGS[1])}
    coo = CompressOptions(chunk_size=64, group_chunks=4, fallback=False, weights="coo")
    return {
        "empty": (b"", {}),
        "stored": (bytes(np.arange(256, dtype=np.uint8)), {}),
        "general": (TEXT, {}),
        "learned-mdl": (TEXT[:1000], ours),
        "learned-paper": (TEXT[:777], paper),
        "learned-merges": (TEXT[:2000], merged),
        "learned-coo": (TEXT[:130], {**ours, "options": coo}),
    }


def make(name: str, folder: Path) -> bytes:
    """The archive of case `name`, with fixed metadata."""
    data, arguments = cases()[name]
    source = folder / name
    source.write_bytes(data)
    source.chmod(0o640)
    import os

    os.utime(source, ns=(10**18, 10**18))
    target = folder / (name + ".mdlz")
    codec.compress(source, target, **arguments)  # type: ignore[arg-type]
    return target.read_bytes()


def main() -> None:
    """Write what does not exist yet."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (data, _) in cases().items():
            path = HERE / f"v{VERSION}-{name}.mdlz"
            if not path.exists():
                path.write_bytes(make(name, Path(folder)))
            lines.append(f"{sha256(data).hexdigest()}  {path.name}\n")
    (HERE / "SHA256").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
