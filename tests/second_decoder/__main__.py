"""`python -m tests.second_decoder ARCHIVE [MODEL...] > ORIGINAL`."""

import sys
from pathlib import Path

from tests.second_decoder import Refused, decode

if len(sys.argv) < 2:
    sys.exit("usage: python -m tests.second_decoder ARCHIVE [MODEL...] > ORIGINAL")
try:
    archive, *models = (Path(name).read_bytes() for name in sys.argv[1:])
    sys.stdout.buffer.write(decode(archive, models=models))
except (OSError, Refused) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
