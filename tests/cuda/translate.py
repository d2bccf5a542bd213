"""Turns a kernel from CUDA C++ into C++ for device/device.h: translate.py KERNEL.cu NAME > KERNEL.cpp

The language stays: what CUDA adds to C++ are words that device.h defines. Shared memory and inline PTX are put in other
words here. An instruction that is not in the table below ends the translation: nothing is passed over.
"""

import re
import sys

TYPES = {"f32": "float", "f64": "double", "u32": "unsigned", "s32": "int", "u64": "unsigned long", "s64": "long"}
ATOMS = {"add": "atomicAdd", "min": "atomicMin", "max": "atomicMax"}
PRODUCTS = {("16", "f16"): "__half", ("16", "bf16"): "__nv_bfloat16", ("8", "tf32"): "device_tf32"}


def mma(m, out, given):
    element = PRODUCTS[m["k"], m["type"]]
    registers = [f"device_bits({x})" for x in given[:6]] + given[6:]
    return f"device_mma<{element}>({', '.join(out + registers)});"


def ldmatrix(m, out, given):
    taken = " ".join(f"{x} = registers[{i}];" for i, x in enumerate(out))
    turned = "true" if m["trans"] else "false"
    return f"{{ uint32_t registers[{m['n']}]; device_ldmatrix<{m['n']}, {turned}>(registers, {given[0]}); {taken} }}"


def stmatrix(m, out, given):
    turned = "true" if m["trans"] else "false"
    values = ", ".join(given[1:])
    return f"{{ uint32_t registers[] = {{ {values} }}; device_stmatrix<{m['n']}, {turned}>({given[0]}, registers); }}"


def copy_async(m, out, given):
    have = given[int(m["have"][1:])] if m["have"].startswith("%") else m["have"]
    return f"device_copy_async({given[0]}, {given[1]}, {m['size']}, {have});"


def atom(m, out, given):
    kind = TYPES[m["type"]]
    return f"{out[0]} = {ATOMS[m['op']]}(({kind} *)({given[0]}), ({kind})({given[1]}));"


INSTRUCTIONS = [
    (r"mma\.sync\.aligned\.m16n8k(?P<k>\d+)\.row\.col\.f32\.(?P<type>f16|bf16|tf32)\.(?P=type)\.f32 ", mma),
    (r"ldmatrix\.sync\.aligned\.m8n8\.x(?P<n>\d)(?P<trans>\.trans)?\.shared", ldmatrix),
    (r"stmatrix\.sync\.aligned\.m8n8\.x(?P<n>\d)(?P<trans>\.trans)?\.shared", stmatrix),
    (r"cp\.async\.c[ag]\.shared::cta\.global \[%0\], \[%1\], (?P<size>\d+), (?P<have>%?\d+);", copy_async),
    (r"cp\.async\.mbarrier\.arrive\.shared", lambda m, out, given: ";"),  # those who arrive are one more and one less
    (r"max\.NaN\.f32 ", lambda m, out, given: f"{out[0]} = device_max_nan({given[0]}, {given[1]});"),
    (r"min\.NaN\.f32 ", lambda m, out, given: f"{out[0]} = device_min_nan({given[0]}, {given[1]});"),
    (r"atom\.relaxed\.(?P<op>add|min|max)\.(?P<type>\w+) %0, \[%1\], %2;", atom),
    (r"\{?\s*\.reg \.pred %+px;.*elect\.sync", lambda m, out, given: f"{out[0]} = device_elect();"),
]


def parts(text, separator):
    """`text` at each `separator` that stands in no bracket and no string; `::` separates nothing."""
    found, depth, begin, i = [], 0, 0, 0
    while i < len(text):
        c = text[i]
        if c == '"':
            i = end_of_string(text, i)
            continue
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif separator == ":" and text.startswith("::", i):
            i += 1
        elif c == separator and depth == 0:
            found.append(text[begin:i])
            begin = i + 1
        i += 1
    return found + [text[begin:]]


def end_of_string(text, i):
    """The place behind the string that begins at `i`."""
    i += 1
    while text[i] != '"':
        i += 2 if text[i] == "\\" else 1
    return i + 1


def operands(text):
    """The expressions of `"=r"(a), "f"(b)`."""
    if not text.strip():
        return []
    return [re.fullmatch(r'\s*"[^"]*"\s*\((.*)\)\s*', part, re.S)[1] for part in parts(text, ",")]


def instruction(text):
    """C++ for what stands between the brackets of one `asm(…)`."""
    sections = parts(text, ":")
    ptx = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', sections[0]))
    ptx = re.sub(r"\\[nt]", " ", ptx).strip()
    out = operands(sections[1]) if len(sections) > 1 else []
    given = operands(sections[2]) if len(sections) > 2 else []
    for pattern, words in INSTRUCTIONS:
        if found := re.match(pattern, ptx):
            return words(found, out, given)
    sys.exit(f"translate: PTX that the device does not know: {ptx}")


def without_asm(source):
    done, at = "", 0
    begins = re.compile(r"\basm\s*(?:volatile)?\s*\(")
    while found := begins.search(source, at):
        depth, i = 1, found.end()
        while depth:
            if source[i] == '"':
                i = end_of_string(source, i)
                continue
            depth += {"(": 1, ")": -1}.get(source[i], 0)
            i += 1
        done += source[at : found.start()] + instruction(source[found.end() : i - 1])
        at = re.compile(r"\s*;").match(source, i).end()
    return done + source[at:]


def main():
    path, name = sys.argv[1:]
    with open(path) as file:
        source = file.read()
    source = re.sub(r"^#include.*$", "", source, flags=re.M)
    source = re.sub(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?char\s+(\w+)\[\];", r"char *\1 = device_shared;", source)
    print('#include "device.h"\nnamespace kernel {')
    print(without_asm(source))
    print("}")
    print('extern "C" __attribute__((visibility("default")))')
    print("void run(void **parameters, const unsigned *grid, const unsigned *block, size_t shared) {")
    print(f'    device_launch("{name}", &kernel::{name}, parameters, grid, block, shared);')
    print("}")


main()
