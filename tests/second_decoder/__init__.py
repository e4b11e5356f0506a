"""A second decoder of mdlzip archives, written from docs/format*.md: standard library and numpy.

It shares no code with mdlzip; names follow the pages.
"""

from tests.second_decoder.archive import decode as decode
from tests.second_decoder.fields import Refused as Refused
from tests.second_decoder.fields import Undecoded as Undecoded
