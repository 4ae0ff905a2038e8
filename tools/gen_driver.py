#!/usr/bin/env python3
"""Makes source files from the tables of driver entries (src/driver/*_entries.txt).

One table is the single source of what the shim exports, what the software GPU exports and how each
entry is classed. This program, run by CMake at build time, turns it into:

  inc      an X-macro list: ALLOT_ENTRY(index, symbol, name, since, variant, class)
  table    C++ arrays: the entries, two hash tables (by symbol, by name) built here so that a lookup at
           run time neither allocates nor needs a constructor
  shapes   how each entry's parameters travel, for compile-time checks of hooks
  stubs    x86-64 assembly: one exported jump per entry through a slot, and a lazy resolver
  exports  a linker script that exports exactly the table, with extra names as given

Standard library only. It must not know what a class means: that is the shim's business.
"""
import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

VARIANTS = ("none", "ptds", "ptsz")
CUDA_CLASSES = (
    "plain", "init", "proc", "alloc", "free", "import", "host", "map", "unmap", "trim", "mem_query",
    "submit", "wait", "capture", "graph", "create", "destroy", "checkpoint",
)
NVML_CLASSES = (
    "plain", "init", "memory_info", "bar_info", "process_list", "utilisation", "accounting", "fields",
    "count", "handle", "identity",
)
CLASSES = {"cuda": CUDA_CLASSES, "nvml": NVML_CLASSES}
# What a stub answers when the driver at hand lacks the entry and nobody resolved it:
# CUDA_ERROR_NOT_SUPPORTED (cuda.h) and NVML_ERROR_FUNCTION_NOT_FOUND (nvml.h).
ABSENT_RESULT = {"cuda": 801, "nvml": 13}


class TableError(Exception):
    """A line of a table that cannot be used; the text names file, line and cause."""


@dataclass(frozen=True)
class Entry:
    symbol: str
    name: str
    since: int
    variant: str
    cls: str
    shape: str
    notes: str


def read_table(api, path):
    """Entries of one table in file order (sorted by symbol, which is checked)."""
    entries = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            entries.append(parse_line(api, line))
        except ValueError as error:
            raise TableError(f"{path}:{number}: {error}") from None
    symbols = [entry.symbol for entry in entries]
    if symbols != sorted(set(symbols)):
        wrong = next(b for a, b in zip(symbols, symbols[1:]) if a >= b)
        raise TableError(f"{path}: {wrong} is listed twice or out of order")
    if not entries:
        raise TableError(f"{path}: no entries")
    return entries


def parse_line(api, line):
    if api == "cuda":
        fields = line.split(None, 6)
        if len(fields) < 6:
            raise ValueError("expected: symbol name since variant class shape [notes]")
        symbol, name, since, variant, cls, shape = fields[:6]
        notes = fields[6] if len(fields) > 6 else ""
    else:
        fields = line.split(None, 4)
        if len(fields) < 4:
            raise ValueError("expected: symbol since class shape [notes]")
        symbol, since, cls, shape = fields[:4]
        name, variant = symbol, "none"
        notes = fields[4] if len(fields) > 4 else ""
    if not re.fullmatch(r"[A-Za-z_]\w*", symbol) or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(f"{symbol}: not a symbol")
    if not since.isdigit():
        raise ValueError(f"{symbol}: version {since} is no number")
    if variant not in VARIANTS:
        raise ValueError(f"{symbol}: unknown variant {variant}")
    if cls not in CLASSES[api]:
        raise ValueError(f"{symbol}: unknown class {cls}")
    if not re.fullmatch(r"[?-]|[lihcfdMS]+", shape):
        raise ValueError(f"{symbol}: shape {shape} is none of driver_shapes.py")
    return Entry(symbol, name, int(since), variant, cls, shape, notes)


def hash_text(text):
    """FNV-1a, 32 bits; src/driver/entries.cc computes the same."""
    value = 2166136261
    for byte in text.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def hash_slots(keys):
    """Open addressing with linear probing: slot -> 1 + position in keys, 0 = empty."""
    size = 16
    while size < 2 * len(keys):
        size *= 2
    slots = [0] * size
    for position, key in enumerate(keys):
        at = hash_text(key) % size
        while slots[at]:
            at = (at + 1) % size
        slots[at] = position + 1
    return slots


def camel(text):
    return "k" + "".join(part.capitalize() for part in text.split("_"))


def numbers(values):
    rows = [values[i:i + 16] for i in range(0, len(values), 16)]
    return "\n".join("    " + ", ".join(str(value) for value in row) + "," for row in rows)


def make_inc(api, entries, source):
    upper = api.upper()
    lines = [f"// Made by tools/gen_driver.py from {source}. Define ALLOT_ENTRY before including.",
             "// ALLOT_ENTRY(index, symbol, name, since, variant, class)",
             "#ifndef ALLOT_ENTRY", "#error \"define ALLOT_ENTRY first\"", "#endif"]
    for index, entry in enumerate(entries):
        lines.append(f"ALLOT_ENTRY({index}, {entry.symbol}, {entry.name}, {entry.since}, "
                     f"{camel(entry.variant)}, {camel(entry.cls)})")
    lines += ["#undef ALLOT_ENTRY", f"#undef ALLOT_{upper}_ENTRY_COUNT",
              f"#define ALLOT_{upper}_ENTRY_COUNT {len(entries)}"]
    return "\n".join(lines) + "\n"


def name_groups(entries):
    """Names, and for each the run of entry indexes that answer to it, oldest version first."""
    by_name = {}
    for index, entry in enumerate(entries):
        by_name.setdefault(entry.name, []).append(index)
    order, groups = [], []
    for name in sorted(by_name):
        run = sorted(by_name[name], key=lambda i: (entries[i].since, entries[i].symbol))
        groups.append((name, len(order), len(run)))
        order += run
    return order, groups


def make_table(api, entries, source):
    order, groups = name_groups(entries)
    by_symbol = hash_slots([entry.symbol for entry in entries])
    by_name = hash_slots([name for name, _, _ in groups])
    lines = [f"// Made by tools/gen_driver.py from {source}; included by src/driver/entries.cc only.",
             f"constexpr Entry k{api.capitalize()}Entries[] = {{"]
    for entry in entries:
        lines.append(f'    {{"{entry.symbol}", "{entry.name}", {entry.since}, '
                     f"Variant::{camel(entry.variant)}, Class::{camel(entry.cls)}}},")
    lines += ["};", f"constexpr uint16_t k{api.capitalize()}BySymbol[] = {{", numbers(by_symbol), "};",
              f"constexpr uint16_t k{api.capitalize()}ByName[] = {{", numbers(by_name), "};",
              f"constexpr NameGroup k{api.capitalize()}Names[] = {{"]
    lines += [f"    {{{first}, {count}}}," for _, first, count in groups]
    lines += ["};", f"constexpr uint16_t k{api.capitalize()}NameOrder[] = {{", numbers(order), "};"]
    return "\n".join(lines) + "\n"


def make_shapes(api, entries, source):
    lines = [f"// Made by tools/gen_driver.py from {source}; included by src/driver/signature.h only.",
             f"inline constexpr Shape k{api.capitalize()}Shapes[] = {{"]
    lines += [f'    {{"{entry.symbol}", "{entry.shape}"}},' for entry in entries]
    return "\n".join([*lines, "};"]) + "\n"


def make_stubs(api, entries, source):
    prefix = f"allot_{api}"
    out = [f"""# Made by tools/gen_driver.py from {source}.
#
# Each exported symbol jumps through its slot, so a call costs one indirect jump and its arguments,
# stack and return address reach the real function untouched. A slot starts at a lazy stub, which pushes
# its index and enters {prefix}_resolve; that saves every argument register, asks
# {prefix}_resolve_entry(index) where the call belongs, restores and jumps there. The resolver stores the
# address into the slot itself, or leaves it to be asked again.
#ifndef __x86_64__
#error "allot's jump stubs are written for x86-64 only"
#endif
    .text
    .hidden {prefix}_slots
    .hidden {prefix}_resolve_entry
"""]
    for index, entry in enumerate(entries):
        out.append(f"""    .globl {entry.symbol}
    .type {entry.symbol}, @function
    .p2align 4
{entry.symbol}:
    .cfi_startproc
    endbr64
    jmp *{prefix}_slots+{8 * index}(%rip)
    .cfi_endproc
    .size {entry.symbol}, . - {entry.symbol}
""")
    out.append(RESOLVER.replace("PREFIX", prefix).replace("ABSENT", str(ABSENT_RESULT[api])))
    for index, _ in enumerate(entries):
        out.append(f"""    .p2align 4
.L{prefix}_lazy_{index}:
    .cfi_startproc
    endbr64
    pushq ${index}
    .cfi_adjust_cfa_offset 8
    jmp {prefix}_resolve
    .cfi_endproc
""")
    out.append(f"""    .data
    .globl {prefix}_slots
    .type {prefix}_slots, @object
    .p2align 6
{prefix}_slots:
""")
    out += [f"    .quad .L{prefix}_lazy_{index}\n" for index in range(len(entries))]
    out.append(f"""    .size {prefix}_slots, . - {prefix}_slots
    .section .note.GNU-stack,"",@progbits
""")
    return "".join(out)


# On entry the index lies at (%rsp) and the caller's return address above it, so %rsp is a multiple of 16
# (System V AMD64 ABI, 3.2.2). Seven integer registers, a pad and eight vector registers keep it so.
# %r10 (static chain) and %rax (vector count of variadic calls) are saved with the arguments.
RESOLVER = """    .p2align 4
    .type PREFIX_resolve, @function
PREFIX_resolve:
    .cfi_startproc
    .cfi_def_cfa_offset 16
    endbr64
    pushq %rdi
    .cfi_adjust_cfa_offset 8
    pushq %rsi
    .cfi_adjust_cfa_offset 8
    pushq %rdx
    .cfi_adjust_cfa_offset 8
    pushq %rcx
    .cfi_adjust_cfa_offset 8
    pushq %r8
    .cfi_adjust_cfa_offset 8
    pushq %r9
    .cfi_adjust_cfa_offset 8
    pushq %rax
    .cfi_adjust_cfa_offset 8
    pushq %r10
    .cfi_adjust_cfa_offset 8
    subq $128, %rsp
    .cfi_adjust_cfa_offset 128
    movaps %xmm0, (%rsp)
    movaps %xmm1, 16(%rsp)
    movaps %xmm2, 32(%rsp)
    movaps %xmm3, 48(%rsp)
    movaps %xmm4, 64(%rsp)
    movaps %xmm5, 80(%rsp)
    movaps %xmm6, 96(%rsp)
    movaps %xmm7, 112(%rsp)
    movl 192(%rsp), %edi
    call PREFIX_resolve_entry
    movq %rax, %r11
    movaps (%rsp), %xmm0
    movaps 16(%rsp), %xmm1
    movaps 32(%rsp), %xmm2
    movaps 48(%rsp), %xmm3
    movaps 64(%rsp), %xmm4
    movaps 80(%rsp), %xmm5
    movaps 96(%rsp), %xmm6
    movaps 112(%rsp), %xmm7
    addq $128, %rsp
    .cfi_adjust_cfa_offset -128
    popq %r10
    .cfi_adjust_cfa_offset -8
    popq %rax
    .cfi_adjust_cfa_offset -8
    popq %r9
    .cfi_adjust_cfa_offset -8
    popq %r8
    .cfi_adjust_cfa_offset -8
    popq %rcx
    .cfi_adjust_cfa_offset -8
    popq %rdx
    .cfi_adjust_cfa_offset -8
    popq %rsi
    .cfi_adjust_cfa_offset -8
    popq %rdi
    .cfi_adjust_cfa_offset -8
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    testq %r11, %r11
    jz 1f
    jmp *%r11
1:  movl $ABSENT, %eax
    ret
    .cfi_endproc
    .size PREFIX_resolve, . - PREFIX_resolve
"""


def make_exports(entries, extra):
    names = sorted({entry.symbol for entry in entries} | set(extra))
    return "{\n  global:\n" + "".join(f"    {name};\n" for name in names) + "  local: *;\n};\n"


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("inc", "table", "shapes", "stubs", "exports"))
    parser.add_argument("--api", choices=("cuda", "nvml"), required=True)
    parser.add_argument("--table", required=True, help="the table of entries")
    parser.add_argument("--output", required=True)
    parser.add_argument("--extra", nargs="*", default=[], help="names to export besides the table")
    options = parser.parse_args(arguments)
    try:
        entries = read_table(options.api, options.table)
    except (TableError, OSError) as error:
        print(f"gen_driver.py: {error}", file=sys.stderr)
        return 1
    source = Path(options.table).name
    text = {
        "inc": lambda: make_inc(options.api, entries, source),
        "table": lambda: make_table(options.api, entries, source),
        "shapes": lambda: make_shapes(options.api, entries, source),
        "stubs": lambda: make_stubs(options.api, entries, source),
        "exports": lambda: make_exports(entries, options.extra),
    }[options.what]()
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
