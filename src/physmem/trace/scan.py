# SPDX-License-Identifier: GPL-2.0-or-later
"""The scanner of ftrace text: bytes in, rows out.

Linux: kernel/trace/trace_output.c (the columns in front of an event)

A line is `comm-pid [cpu] flags seconds.micros: event: field=value ...`. Three things are known only
to the caller: what a task is called, which bits a gfp text means, how often an unread event came.
The scanner keeps such texts in one hash table with a number for each; at a text that it does not
know it stops in front of the line and asks (NEED).
"""

from physmem.lib.jit import kernel
from physmem.trace.bytescan import (
    COLON,
    COMM,
    DASH,
    DOT,
    MARK,
    NAME,
    NEWLINE,
    NINE,
    SPACE,
    ZERO,
    Row,
    Scan,
    byte,
    end_of_line,
    end_of_word,
    match,
    number,
    number_of_text,
    same_bytes,
    scan_at,
    skip_spaces,
    word_at,
)
from physmem.trace.events import HARDIRQ, IRQS_OFF, NEED_RESCHED, NO_PFN, SOFTIRQ, Kind
from physmem.trace.fields import BULK, object_event, page_event, probe, read_fields
from physmem.trace.literals import (
    L_CPU_LINE,
    L_CPUS_LINE,
    L_KMEM,
    L_LOST,
    L_STACK,
    L_VERSION_LINE,
)

DONE = 0
"""Every line of the text has been read."""
FULL = 1
"""No room for another row."""
NEED = 2
"""The text at `at`, `length` of the space `space` is not in the table."""
LOST = 3
"""A line told of `value` lost events (it has been passed)."""
BAD = 4
"""The line at `pos` cannot be read; `value` is a reason."""

REASONS = (
    "not a line of ftrace text",
    "the flags column has an unknown letter",
    "no time stamp where it should be",
    "the time is before that of the line above on the same CPU: lines are out of order",
    "a field of the event is missing or damaged",
    "an order, migratetype or frame number that cannot be",
)
NO_LINE, NO_FLAGS, NO_TIME, NO_ORDER, NO_FIELD, NO_RANGE = range(len(REASONS))

MAX_CPUS = 1 << 16
COMM_WIDTH = 16
MARKER = int(Kind.MARKER)
LAST_KIND = int(Kind.CACHE_FREE)


@kernel
def is_digit(c: int) -> bool:
    """Tell whether a byte is a decimal digit."""
    return ZERO <= c <= NINE


@kernel
def read_flags(s: Scan, row: Row, p: int) -> int:
    """Read the flags columns into the row; the place behind, or 0."""
    end = end_of_word(p)
    if not 4 <= end - p <= 6:
        return 0
    context = 0
    c = byte(p)
    if c == 100 or c == 68 or c == 98:  # d D b
        context = IRQS_OFF
    elif c != DOT and c != 88:  # X: unknown to this architecture
        return 0
    c = byte(p + 1)
    if 65 <= c <= 90 or 97 <= c <= 122:
        context |= NEED_RESCHED
    elif c != DOT:
        return 0
    c = byte(p + 2)
    if c == 104 or c == 122 or c == 90:  # h z Z
        context |= HARDIRQ
    elif c == 115:  # s
        context |= SOFTIRQ
    elif c == 72:  # H
        context |= HARDIRQ | SOFTIRQ
    elif c != DOT:
        return 0
    c = byte(p + 3)
    depth = 0
    if is_digit(c):
        depth = c - 48
        s.depth_seen = 1
    elif 97 <= c <= 102:
        depth = c - 87
        s.depth_seen = 1
    elif c != DOT:
        return 0
    row.context = context
    row.preempt = depth
    return end


@kernel
def read_time(s: Scan, p: int) -> int:
    """Read `seconds.fraction:` as nanoseconds into `s.value`; the place behind, or 0."""
    value = 0
    begin = p
    while is_digit(byte(p)) and p - begin < 18:
        value = value * 10 + (byte(p) - 48)
        p += 1
    if p == begin:
        return 0
    if byte(p) == DOT:
        if value > 9_000_000_000:
            return 0
        p += 1
        left = 9
        while is_digit(byte(p)) and left > 0:
            value = value * 10 + (byte(p) - 48)
            p += 1
            left -= 1
        if left == 9:
            return 0
        while left > 0:
            value *= 10
            left -= 1
    if byte(p) != COLON:  # a clock without fraction (counter) is taken as it is
        return 0
    s.value = value
    return p + 1


@kernel
def dash_before_pid(p: int) -> bool:
    """Tell whether `-pid [cpu` or `-pid (tgid) [cpu` stands at `p`."""
    q = p + 1
    while is_digit(byte(q)):
        q += 1
    if q == p + 1 or byte(q) != SPACE:
        return False
    q = skip_spaces(q)
    if byte(q) == 40:  # (
        while byte(q) != 41 and byte(q) != NEWLINE:
            q += 1
        q = skip_spaces(q + 1) if byte(q) == 41 else q
    return byte(q) == 91 and is_digit(byte(q + 1))  # [


@kernel
def find_pid(line: int) -> int:
    """Return the place of the dash between name and pid, or 0.

    ftrace pads the name to 16 places. In other dialects the first `-pid [cpu]` counts, with a space
    for the dash in `perf script`: names may hold blanks, colons, brackets and dashes themselves.
    """
    p = line
    while p < line + COMM_WIDTH and byte(p) != NEWLINE:
        p += 1
    if byte(line) == SPACE and byte(p) == DASH and dash_before_pid(p):
        return p
    p = line
    while byte(p) != NEWLINE:
        c = byte(p)
        if (c == DASH or c == SPACE) and dash_before_pid(p):
            return p
        p += 1
    return 0


@kernel
def read_task(s: Scan, row: Row, line: int) -> int:
    """Read name, pid and CPU; the place behind, 0: no line of ftrace, -1: NEED."""
    dash = find_pid(line)
    if dash == 0:
        return 0
    p = dash + 1
    pid = 0
    while is_digit(byte(p)) and p - dash < 11:
        pid = pid * 10 + (byte(p) - 48)
        p += 1
    while byte(p) != 91:  # [, which find_pid() saw
        p += 1
    p += 1
    digits = p
    cpu = 0
    while is_digit(byte(p)) and p - digits < 6:
        cpu = cpu * 10 + (byte(p) - 48)
        p += 1
    if pid >= 1 << 31 or cpu >= MAX_CPUS or byte(p) != 93:  # ]
        return 0
    begin = skip_spaces(line)
    end = dash
    while end > begin and byte(end - 1) == SPACE:
        end -= 1
    comm = number_of_text(s, min(begin, end), end, COMM)
    if comm < 0:
        return -1
    row.comm = comm
    row.pid = pid
    row.cpu = cpu
    return p + 1


@kernel
def odd_line(s: Scan, line: int) -> int:
    """Judge a line without task and CPU: DONE to pass it, LOST, or BAD."""
    p = skip_spaces(line)
    if byte(p) == NEWLINE or byte(p) == 35 or byte(p) == 13:
        return DONE  # blank or comment
    if match(s, p, L_STACK) or s.last_kind == MARKER:
        return DONE  # a stack below its event; further lines of a marker's text
    if match(s, line, L_CPU_LINE):
        while byte(p) != NEWLINE:
            q = match(s, p, L_LOST)
            if q:
                s.value = 1
                number(s, q)
                return LOST
            p += 1
        return DONE
    return DONE if match(s, line, L_CPUS_LINE) or match(s, line, L_VERSION_LINE) else BAD


@kernel
def kind_at(s: Scan, p: int) -> int:
    """Return the `Kind` of the event name at `p`; 0: none that is read."""
    for kind in range(1, LAST_KIND + 1):
        if match(s, p, kind):
            return kind
    return 0


@kernel
def read_event(s: Scan, row: Row, p: int) -> int:
    """Read the event that begins at `p`; its `Kind`, 0: one that is not read, -2: NEED.

    -1: BAD, and `s.value` is the reason. `s.at` is a place up to which there is no newline.
    """
    kind = kind_at(s, p)
    if kind == 0:
        q = match(s, p, L_KMEM)
        if q:  # perf script writes the group in front
            p = q
            kind = kind_at(s, p)
    if kind == 0:
        q = p
        while byte(q) > SPACE and byte(q) != COLON:
            q += 1
        name = number_of_text(s, p, q, NAME)
        if name < 0:
            return -2
        word_at(s.name_counts + name * 8).value += 1
        s.at = q
        return 0
    p = skip_spaces(match(s, p, kind))
    row.pfn = NO_PFN
    row.order = 0
    row.migratetype = -1
    row.gfp = 0
    row.arg0 = 0
    row.arg1 = 0
    row.site = 0
    if kind == MARKER:
        s.at = end_of_line(p)
        marker = number_of_text(s, p, s.at, MARK)
        if marker < 0:
            return -2
        row.arg0 = marker
        return kind
    seen = read_fields(s, p, kind)
    if seen == -2:
        return -2
    s.value = NO_FIELD
    if seen < 0 or seen & s.required[kind] != s.required[kind]:
        return -1
    s.value = NO_RANGE
    if kind > MARKER:
        good = object_event(s, row, kind, seen)
    elif kind < BULK:
        good = page_event(s, row, kind, seen)
    else:
        good = probe(s, row, kind, seen)
    return kind if good else -1


@kernel
def scan(address: int) -> int:
    """Read lines from `pos` on until DONE, FULL, NEED, LOST or BAD.

    NEED, FULL and BAD leave `pos` at the line; calling again reads it again.
    """
    s = scan_at(address)
    rows = s.rows
    other = 0  # the last line with an event, and the length of its task and CPU
    length = 0
    comm = 0
    pid = 0
    cpu = 0
    while s.pos < s.end:
        if s.row == len(rows):
            return FULL
        line = s.pos
        row = rows[s.row]
        if length != 0 and same_bytes(line, other, length):
            p = line + length
        else:
            length = 0
            p = read_task(s, row, line)
            if p < 0:
                return NEED
            if p == 0:
                odd = odd_line(s, line)
                if odd == BAD:
                    s.value = NO_LINE
                    return BAD
                s.pos = end_of_line(line) + 1
                s.line += 1
                if odd == LOST:
                    return LOST
                continue
            comm = row.comm
            pid = row.pid
            cpu = row.cpu
            other = line
            length = p - line
        p = skip_spaces(p)
        row.context = 0
        row.preempt = 0
        if not is_digit(byte(p)):
            p = read_flags(s, row, p)
            if p == 0:
                s.value = NO_FLAGS
                return BAD
            p = skip_spaces(p)
        p = read_time(s, p)
        if p == 0:
            s.value = NO_TIME
            return BAD
        ts = s.value
        last = word_at(s.last_ts + cpu * 8)
        if ts < last.value:
            s.value = NO_ORDER
            return BAD
        last.value = ts
        kind = read_event(s, row, skip_spaces(p))
        if kind == -2:
            return NEED
        if kind == -1:
            return BAD
        s.pos = end_of_line(s.at) + 1
        s.line += 1
        s.event_lines += 1
        s.last_kind = kind
        if kind > 0:
            row.line = s.line
            row.ts = ts
            row.cpu = cpu
            row.pid = pid
            row.comm = comm
            row.kind = kind
            s.row += 1
    return DONE
