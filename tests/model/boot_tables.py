# SPDX-License-Identifier: GPL-2.0-or-later
"""What memblock must do, one row a case: name, direction, operations, result.

Sizes: K, M, G are powers of 1024, MAX the last address, B the start of memory, lim the current
limit; `+n` is a size. td and bu are top-down and bottom-up. An array is `[base,+size)`, with
`nN,fF` for node and flags; `none` is the empty array.
"""

import re

ARRAYS = """
add simple | - | add(1G,4M) | mem = [1G,+4M)
add node simple | - | add_node(1M,16M,nid1,fl1) | mem = [1M,+16M,n1,f1)
add disjoint | - | add(1G,8K); add(1G+16K,8K) | mem = [1G,+8K) [1G+16K,+8K)
add overlap top | - | add(512M,1G); add(256M,512M) | mem = [256M,+1280M)
add overlap bottom | - | add(128M,512M); add(256M,1G) | mem = [128M,+1152M)
add within | - | add(8M,32M); add(16M,1M) | mem = [8M,+32M)
add twice | - | add(16K,2M); add(16K,2M) | mem = [16K,+2M)
add between | - | add(1G,8K); add(1G+16K,8K); add(1G+8K,8K) | mem = [1G,+24K)
add near max | - | add(MAX-1M,2M) | mem = [MAX-1M,+1M)
reserve simple | - | res(2G,128M) | res = [2G,+128M)
reserve disjoint | - | res(256M,16M); res(512M,512M) | res = [256M,+16M) [512M,+512M)
reserve overlap top | - | res(1G,1G); res(128M,1G) | res = [128M,+1920M)
reserve overlap bottom | - | res(2K,128K); res(128K,128K) | res = [2K,+254K)
reserve within | - | res(1M,8M); res(2M,64K) | res = [1M,+8M)
reserve twice | - | res(16K,2M); res(16K,2M) | res = [16K,+2M)
reserve between | - | res(1G,8K); res(1G+16K,8K); res(1G+8K,8K) | res = [1G,+24K)
reserve near max | - | res(MAX-1M,2M) | res = [MAX-1M,+1M)
remove simple | - | add(2K,4K); add(128K,4M); rm(2K,4K) | mem = [128K,+4M)
remove absent | - | add(512K,4M); rm(64M,1G) | mem = [512K,+4M)
remove overlap top | - | add(32M,32M); rm(16M,32M) | mem = [48M,+16M)
remove overlap bottom | - | add(2M,64M); rm(32M,256M) | mem = [2M,+30M)
remove within | - | add(1M,32M); rm(16M,1M) | mem = [1M,+15M) [17M,+16M)
remove only region | - | add(2K,4K); rm(2K,4K) | mem = none
remove near max | - | add(MAX-2M,2M); rm(MAX-1M,2M) | mem = [MAX-2M,+1M)
remove overlap two | - | add(16M,32M); add(64M,64M); rm(32M,64M) | mem = [16M,+16M) [96M,+32M)
free simple | - | res(4M,1M); res(8M,1M); free(4M,1M) | res = [8M,+1M)
free absent | - | res(2M,8K); free(16M,128M) | res = [2M,+8K)
free overlap top | - | res(8M,32M); free(1M,8M) | res = [9M,+31M)
free overlap bottom | - | res(8M,32M); free(32M,32M) | res = [8M,+24M)
free within | - | res(1M,8M); free(4M,1M) | res = [1M,+3M) [5M,+4M)
free only region | - | res(2K,4K); free(2K,4K) | res = none
free near max | - | res(MAX-2M,2M); free(MAX-1M,2M) | res = [MAX-2M,+1M)
free overlap two | - | res(16M,32M); res(64M,64M); free(32M,64M) | res = [16M,+16M) [96M,+32M)
trim aligned | - | add(32,128); trim(32) | mem = [32,+128)
trim too small | - | add(32,64); add(128,30); trim(32) | mem = [32,+64)
trim unaligned base | - | add(32,64); add(130,62); trim(32) | mem = [32,+64) [160,+32)
trim unaligned end | - | add(32,64); add(128,62); trim(32) | mem = [32,+64) [128,+32)
"""

ALLOCATIONS = """
simple | td | alloc(2,al32) | B+16352; res = [B+16352,+2)
simple | bu | alloc(2,al32) | B; res = [B,+2)
disjoint | td | res(B+16382,2); alloc(16,al64) | B+16320; res = [B+16320,+16) [B+16382,+2)
disjoint | bu | res(B+2,2); alloc(16,al64) | B+64; res = [B+2,+2) [B+64,+16)
before | td | res(B+15840,32); alloc(512,al32) | B+15872; res = [B+15840,+544)
before | bu | res(B+512,128); alloc(512,al32) | B; res = [B,+640)
after | td | res(B+16352,8); alloc(512,al32) | B+15840; res = [B+15840,+520)
after | bu | res(B+32,64); alloc(512,al32) | B+96; res = [B+32,+576)
second fit | td | res(B+15872,512); res(B+15360,256); alloc(1K,al32)
    | B+14336; res = [B+14336,+1280) [B+15872,+512)
second fit | bu | res(B,512); res(B+1024,256); alloc(1K,al32)
    | B+1280; res = [B,+512) [B+1024,+1280)
in between | td | res(B+8224,8128); res(B+32,8128); alloc(64,al32) | B+8160; res = [B+32,+16320)
in between | bu | res(B+8224,8128); res(B+32,8128); alloc(64,al32) | B+8160; res = [B+32,+16320)
small gaps | td | gaps(); alloc(1K,al32) | fail
small gaps | bu | gaps(); alloc(1K,al32) | fail
all reserved | td | res(B,16K); alloc(256,al32) | fail; res = [B,+16K)
all reserved | bu | res(B,16K); alloc(256,al32) | fail; res = [B,+16K)
no space | td | res(B,16128); alloc(1K,al32) | fail; res = [B,+16128)
no space | bu | res(B,16128); alloc(1K,al32) | fail; res = [B,+16128)
limited space | td | res(B,16128); alloc(256,al32) | B+16128; res = [B,+16K)
limited space | bu | res(B,16128); alloc(256,al32) | B+16128; res = [B,+16K)
no memory at all | td | alloc(1K,al32) | fail; res = none
no memory at all | bu | alloc(1K,al32) | fail; res = none
too large | td | alloc(16386,al32) | fail; res = none
too large | bu | alloc(16386,al32) | fail; res = none
from: simple | td | alloc(16,al32,[B+16352,lim)) | B+16352; res = [B+16352,+16)
from: simple | bu | alloc(16,al32,[B+16352,lim)) | B+16352; res = [B+16352,+16)
from: misaligned | td | alloc(32,al32,[B+16321,lim)) | B+16352; res = [B+16352,+32)
from: misaligned | bu | alloc(32,al32,[B+16321,lim)) | B+16352; res = [B+16352,+32)
from: high addr | td | alloc(32,al32,[B+16368,lim)) | B+16352; res = [B+16352,+32)
from: high addr | bu | alloc(32,al32,[B+16376,lim)) | B; res = [B,+32)
from: no space above | td | res(B+16320,2); alloc(64,al32,[B+16320,lim))
    | B+16256; res = [B+16256,+66)
from: no space above | bu | res(B+96,16256); alloc(64,al32,[B+128,lim))
    | B; res = [B,+64) [B+96,+16256)
from: min_addr below DRAM | td | res(B+64,16320); alloc(64,al32,[B-96,lim)) | B; res = [B,+16K)
from: min_addr below DRAM | bu | alloc(64,al32,[B-96,lim)) | B; res = [B,+64)
range: simple | td | alloc(128,al32,[B+64,B+576)) | B+448; res = [B+448,+128)
range: simple | bu | alloc(128,al32,[B+64,B+576)) | B+64; res = [B+64,+128)
range: end misaligned | td | alloc(128,al32,[B+64,B+578)) | B+448; res = [B+448,+128)
range: start misaligned | bu | alloc(128,al32,[B+2,B+514)) | B+32; res = [B+32,+128)
range: exact | td | alloc(1K,al32,[B+32,B+1056)) | B+32; res = [B+32,+1K)
range: exact | bu | alloc(1K,al32,[B+32,B+1056)) | B+32; res = [B+32,+1K)
range: narrower than size | td | alloc(256,al32,[B+512,B+544)) | B+288; res = [B+288,+256)
range: narrower than size | bu | alloc(256,al32,[B+512,B+544)) | B; res = [B,+256)
range: low max | td | alloc(1K,al32,[B,B+32)) | fail; res = none
range: low max | bu | alloc(1K,al32,[B,B+32)) | fail; res = none
range: min side reserved | td | res(B+16192,128); alloc(64,al32,[B+16320,B+16384))
    | B+16320; res = [B+16192,+192)
range: min side reserved | bu | res(B+16192,128); alloc(64,al32,[B+16320,B+16384))
    | B+16320; res = [B+16192,+192)
range: max side reserved | td | res(B+16320,64); alloc(128,al32,[B+16192,B+16320))
    | B+16192; res = [B+16192,+192)
range: max side reserved | bu | res(B+16320,64); alloc(128,al32,[B+16192,B+16320))
    | B+16192; res = [B+16192,+192)
range: reserved, space | td | res(B+16320,32); res(B+16096,128); alloc(64,al32,[B+16224,B+16320))
    | B+16256; res = [B+16096,+128) [B+16256,+96)
range: reserved, space | bu | res(B+16320,32); res(B+16096,128); alloc(64,al32,[B+16224,B+16320))
    | B+16224; res = [B+16096,+192) [B+16320,+32)
range: full merge | td | res(B+16320,32); res(B+16128,128); alloc(64,al32,[B+16256,B+16320))
    | B+16256; res = [B+16128,+224)
range: full merge | bu | res(B+16320,32); res(B+16128,128); alloc(64,al32,[B+16256,B+16320))
    | B+16256; res = [B+16128,+224)
range: reserved, no space | td
    | res(B+16320,32); res(B+16160,128); alloc(256,al32,[B+16288,B+16320))
    | B+15904; res = [B+15904,+384) [B+16320,+32)
range: reserved, no space | bu
    | res(B+16320,32); res(B+16160,128); alloc(256,al32,[B+16288,B+16320))
    | B; res = [B,+256) [B+16160,+128) [B+16320,+32)
range: all reserved | td | res(B+16352,32); res(B,16320); alloc(256,al32,[B+16320,B+16352))
    | fail; res = [B,+16320) [B+16352,+32)
range: all reserved | bu | res(B+16352,32); res(B,16320); alloc(256,al32,[B+16320,B+16352))
    | fail; res = [B,+16320) [B+16352,+32)
range: cap max | td | alloc(256,al32,[B+15360,B+16640)) | B+16128; res = [B+16128,+256)
range: cap max | bu | alloc(256,al32,[B+1024,B+16640)) | B+1024; res = [B+1024,+256)
range: cap min | td | alloc(1K,al32,[B-256,B+16384)) | B+15360; res = [B+15360,+1K)
range: cap min | bu | alloc(1K,al32,[B,B+16128)) | B; res = [B,+1K)
"""

NODES = """
simple | td | alloc(512,al32,[B,B+16384),nid3) | B+8704; res = [B+8704,+512)
simple | bu | alloc(512,al32,[B,B+16384),nid3) | B+7168; res = [B+7168,+512)
node too small | td | alloc(2K,al32,[B,B+16384),nid1) | B+13312; res = [B+13312,+2K)
node too small | bu | alloc(2K,al32,[B,B+16384),nid1) | B; res = [B,+2K)
node fully reserved | td | res(B+5120,2K); alloc(2K,al32,[B,B+16384),nid2)
    | B+13312; res = [B+5120,+2K) [B+13312,+2K)
node fully reserved | bu | res(B+5120,2K); alloc(2K,al32,[B,B+16384),nid2)
    | B; res = [B,+2K) [B+5120,+2K)
part reserved, fits | td | res(B+9216,512); alloc(128,al32,[B,B+16384),nid4)
    | B+10112; res = [B+9216,+512) [B+10112,+128)
part reserved, fits | bu | res(B+9216,512); alloc(128,al32,[B,B+16384),nid4)
    | B+9728; res = [B+9216,+640)
part reserved, fallback | td | res(B+9472,512); alloc(512,al32,[B,B+16384),nid4)
    | B+15872; res = [B+9472,+512) [B+15872,+512)
part reserved, fallback | bu | res(B+9472,512); alloc(512,al32,[B,B+16384),nid4)
    | B; res = [B,+512) [B+9472,+512)
split range, low node wanted | td | alloc(512,al32,[B+6912,B+7424),nid2)
    | B+6656; res = [B+6656,+512)
split range, low node wanted | bu | alloc(512,al32,[B+6912,B+7424),nid2)
    | B+5120; res = [B+5120,+512)
split range, high node wanted | td | alloc(512,al32,[B+6912,B+7424),nid3)
    | B+6656; res = [B+6656,+512)
split range, high node wanted | bu | alloc(512,al32,[B+6912,B+7424),nid3) | B; res = [B,+512)
range not in wanted node, split | td | alloc(512,al32,[B+11008,B+11520),nid2)
    | B+6656; res = [B+6656,+512)
range not in wanted node, split | bu | alloc(512,al32,[B+11008,B+11520),nid2)
    | B+5120; res = [B+5120,+512)
wanted node below range | td | alloc(64,al32,[B+5120,B+11264),nid0) | B+11200; res = [B+11200,+64)
wanted node below range | bu | alloc(64,al32,[B+5120,B+11264),nid0) | B+5120; res = [B+5120,+64)
wanted node above range | td | alloc(64,al32,[B+5120,B+11264),nid7) | B+11200; res = [B+11200,+64)
wanted node above range | bu | alloc(64,al32,[B+5120,B+11264),nid7) | B+5120; res = [B+5120,+64)
larger than any node | td | alloc(8K,al32,[B,B+16384),nid3) | fail; res = none
larger than any node | bu | alloc(8K,al32,[B,B+16384),nid3) | fail; res = none
full merge across nodes | td
    | res(B+15360,128); res(B+11136,128); alloc(4K,al32,[B+11264,B+15360),nid6)
    | B+11264; res = [B+11136,+4352)
full merge across nodes | bu
    | res(B+15360,128); res(B+11136,128); alloc(4K,al32,[B+11264,B+15360),nid6)
    | B+11264; res = [B+11136,+4352)
free gap straddles nodes | td | res(B,15232); res(B+15488,896); alloc(256,al32,[B+15232,B+15488))
    | fail; res = [B,+15232) [B+15488,+896)
free gap straddles nodes | bu | res(B,15232); res(B+15488,896); alloc(256,al32,[B+15232,B+15488))
    | fail; res = [B,+15232) [B+15488,+896)
"""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def rows(table):
    """Rows of a table as (name, direction, operations, result); an indented line goes on."""
    lines = re.sub(r"\n +", " ", table.strip()).split("\n")
    return [tuple(cell.strip() for cell in line.split("|")) for line in lines]


def number(text, base=0, top=(1 << 64) - 1):
    """Value of `1G`, `B+16352`, `MAX-1M`, `lim` (0: what the kernel calls accessible)."""
    if text == "lim":
        return 0
    total = 0
    for sign, word, unit in re.findall(r"([+-]?)(MAX|B|\d+)([KMG]?)", text):
        value = {"MAX": top, "B": base}.get(word) if not word.isdigit() else int(word)
        total += (-1 if sign == "-" else 1) * value * _UNITS[unit]
    return total


def calls(operations, base=0):
    """(name, numbers) of each operation: `al32` and `nid3` are numbers too, a range is two."""
    found = []
    for operation in operations.split(";"):
        name, inside = re.fullmatch(r"\s*(\w+)\((.*)\)", operation).groups()
        words = re.sub(r"[\[\]()]|nid|al|fl", "", inside).split(",")
        found.append((name, [number(word.strip(), base) for word in words if word.strip()]))
    return found


def regions(text, base=0, nid=1 << 10):
    """Regions (base, size, nid, flags) of an expected array."""
    found = []
    for start, size, node, flags in re.findall(r"\[([^,]+),\+(\w+)(?:,n(\d+),f(\d+))?\)", text):
        where = number(start, base), number(size)
        found.append((*where, int(node) if node else nid, int(flags or 0)))
    return found or [(0, 0, nid, 0)]
