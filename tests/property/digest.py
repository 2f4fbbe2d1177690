# SPDX-License-Identifier: GPL-2.0-or-later
"""Digests of random work on every shape, to be compared between modes and processes.

`python -m tests.property.digest` prints them as JSON, with the mode that made them.
"""

import hashlib
import json
import sys
from random import Random

import msgspec
from tests.property.pair import Pair, random_ops
from tests.property.shapes import SHAPES

from physmem.lib.jit import PURE

SEED = 3
OPERATIONS = 300


def digest(name, seed=SEED, count=OPERATIONS):
    """Digest of all frames, events and of the final state; the number of events."""
    pair = Pair(SHAPES[name], twin=False, validate_every=10)
    told = hashlib.blake2b(digest_size=12)
    events = 0
    for op in random_ops(Random(f"{name} {seed}"), count, pair.shape.end):
        pair.run(op)
        events += len(pair.answers[1])
        told.update(repr(pair.answers).encode())
    told.update(msgspec.json.encode(pair.machine.snapshot()))
    return [told.hexdigest(), events]


def main():
    """Print the digests of the shapes that are named, or of all."""
    names = sys.argv[1:] or list(SHAPES)
    print(json.dumps({"pure": PURE, "digests": {name: digest(name) for name in names}}))


if __name__ == "__main__":
    main()
