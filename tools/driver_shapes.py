"""Shapes of C functions: how each parameter travels, one letter a parameter.

  l  64-bit integer, pointer or handle     f  float       M  structure of more than 16 bytes, in memory
  i  32-bit integer or enumeration         d  double      S  smaller structure, in registers
  h  16-bit integer    c  8-bit integer    -  no parameter at all

Either of two functions of one shape can be called in place of the other (System V AMD64 ABI, 3.2.3), and a
wrong shape is how a hook corrupts its caller. The tables carry the shape of every entry whose
declaration is known; src/driver/signature.h checks a C++ function against it at compile time, and
driver_parity.py checks the tables against the vendor's headers.
"""
import re

BUILTIN = {"unsigned", "signed", "int", "char", "short", "long", "float", "double", "void"}
# __builtin_classify_type of GCC and clang: real numbers and structures; the rest counts as integer.
REAL, STRUCT, UNION = 8, 12, 13


def parameters(text):
    """Parameter texts of a prototype, split at the commas between them."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    parts = [part.strip() for part in [*parts, current] if part.strip()]
    return [] if parts == ["void"] else parts


def value_type(parameter):
    """The type of a parameter passed by value, without its name; None for pointers."""
    if any(letter in parameter for letter in "*[("):
        return None
    words = [word for word in parameter.split() if word != "const"]
    plain = [word for word in words if word not in ("struct", "union", "enum")]
    if len(plain) > 1 and plain[-1] not in BUILTIN:
        words = words[:-1]
    return " ".join(words)


def shapes(compiler, prologue, declared):
    """Shape of each declared function; `prologue` includes the header that defines the types."""
    types = sorted({value_type(parameter) for text in declared.values()
                    for parameter in parameters(text)} - {None})
    lines = [prologue, "#include <stdio.h>", "int main(void) {"]
    for name in types:
        lines.append(f'  printf("{name}:%zu:%d\\n", sizeof({name}), '
                     f"__builtin_classify_type(*({name}*)0));")
    printed = compiler.run_program("\n".join([*lines, "  return 0;", "}"]))
    letters = {None: "l"}
    for name, size, kind in re.findall(r"^(.+):(\d+):(\d+)$", printed, re.M):
        letters[name] = letter(int(size), int(kind))
    return {symbol: "".join(letters[value_type(parameter)] for parameter in parameters(text)) or "-"
            for symbol, text in declared.items()}


def letter(size, kind):
    if kind in (STRUCT, UNION):
        return "M" if size > 16 else "S"
    if kind == REAL:
        return {4: "f", 8: "d"}[size]
    return {8: "l", 4: "i", 2: "h", 1: "c"}[size]
