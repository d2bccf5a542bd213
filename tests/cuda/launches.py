"""What a command asks of the device: launches.py TRACE BEGIN [TIMES], TRACE from DEVICE_TRACE=FILE.

BEGIN is the kernel or copy that a step or a token begins with, TIMES how often it does so in one; without them the whole
trace is one. Prints, for the steps between the first and the last, the launches a step by kernel, the bytes that cross
between host and device, and how often the host waits.
"""

import collections
import sys


def read(path):
    with open(path) as file:
        for line in file:
            kind, *rest = line.rstrip("\n").split("\t")
            yield kind, rest


def family(name):
    """A kernel's name without the types and numbers that CubeCL appends."""
    return name.split("_f32")[0].split("_u32")[0].split("_i32")[0]


def main():
    path, begin, times = sys.argv[1], *(sys.argv[2:] + ["", "1"][len(sys.argv) - 2 :])
    events = list(read(path))
    marks = [i for i, (kind, rest) in enumerate(events) if begin and begin in "\t".join([kind] + rest)][:: int(times)]
    if len(marks) > 2:
        events, steps = events[marks[1] : marks[-1]], len(marks) - 2
    else:
        steps = 1
    launches, units = collections.Counter(), collections.Counter()
    totals = collections.Counter()
    for kind, rest in events:
        totals[kind] += 1
        if kind == "launch":
            name, _, grid, block, _ = rest
            size = 1
            for n in (grid + " " + block).split():
                size *= int(n)
            launches[family(name)] += 1
            units[family(name)] += size
        elif rest:
            totals[f"bytes {kind}"] += int(rest[0])
    print(f"{steps} steps; a step: {totals['launch'] / steps:.1f} launches, {totals['wait'] / steps:.1f} waits, "
          f"{totals['in'] / steps:.1f} copies in ({totals['bytes in'] / steps / 1e3:.1f} kB), "
          f"{totals['out'] / steps:.1f} out ({totals['bytes out'] / steps / 1e3:.1f} kB), "
          f"{totals['within'] / steps:.1f} within ({totals['bytes within'] / steps / 1e6:.2f} MB)")
    print("| kernel | launches a step | threads a launch |\n|---|---|---|")
    for name, count in launches.most_common():
        print(f"| {name} | {count / steps:.1f} | {units[name] / count:,.0f} |")


main()
