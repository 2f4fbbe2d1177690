# SPDX-License-Identifier: GPL-2.0-or-later
"""The study that `physmem sweep --example` prints: every key once, with a comment."""

EXAMPLE = """\
# A study: captures (or experiments) x settings x seeds.  Run it with `physmem sweep FILE`.

captures = ["guest.physmem", "more/*.physmem"]   # relative to this file
seeds = 3                     # 0, 1 and 2; or a list such as [7, 8, 9]; default: 1 seed, 0

[objective]                   # what the winner is best in
metric = "huge_compacted"     # a name of `physmem whatif --json`, or of your own measure
goal = "maximise"             # or "minimise"

[settings]                    # a grid: every combination is a variant
movablecore = ["0", "128M"]   # knobs and values as `physmem whatif --set` takes them
mobility = [true, false]      # true is "on", false is "off"
min_free_kbytes = 4096        # the same in all of them

[sample]                      # only so many of the combinations, chosen by a seed
count = 3
seed = 1

[[variant]]                   # beside the grid: groups with a name of their own
name = "baseline"             # no settings: the machine as it was recorded

[[variant]]
name = "small blocks"
settings = { pageblock_order = 7, pcp = "off" }   # also: policy = "mine.py", beside this file

# Experiments instead of captures, or beside them; the settings are their parameters, too:
#
# [[experiment]]
# name = "llfree-frag"
# params = { rounds = 20 }    # the same in all variants, unless a setting says otherwise
#
# A measure of your own: a function that is given path, settings and seed and returns numbers
# by name. The file travels to the workers.
#
# evaluator = "measure.py:evaluate"
"""
