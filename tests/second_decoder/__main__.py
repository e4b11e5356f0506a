"""`python -m tests.second_decoder ARCHIVE > ORIGINAL`."""

import sys
from pathlib import Path

from tests.second_decoder import Refused, decode

try:
    sys.stdout.buffer.write(decode(Path(sys.argv[1]).read_bytes()))
except IndexError:
    sys.exit("usage: python -m tests.second_decoder ARCHIVE > ORIGINAL")
except (OSError, Refused) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
