"""Layouts of C headers, compared by compiling.

Reads which types, fields, enumerators and constants our ABI headers declare, has two probe programs
print all of them, one compiled against our header and one against the vendor's, and compares the lines.
Used by driver_parity.py. Only our own headers are parsed here, so the parser knows their plain style and
no more.
"""
import re
import subprocess
import tempfile
from pathlib import Path


class Compiler:
    """The C compiler with an include path; cuda.h is a C header."""

    def __init__(self, command, folders):
        self.command = [command, "-w", *[f"-I{folder}" for folder in folders]]

    def preprocess(self, text, *options):
        return self._run(["-E", "-P", *options, "-x", "c", "-"], text)

    def run_program(self, text):
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "probe"
            self._run(["-x", "c", "-", "-o", str(program)], text)
            return subprocess.run([program], capture_output=True, text=True, check=True).stdout

    def _run(self, options, text):
        done = subprocess.run(self.command + options, input=text, capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(self.command + options)}:\n{done.stderr[:3000]}")
        return done.stdout


OUR_TYPE = re.compile(r"CU|cuuint|nvml")


class Layout:
    """What one of our headers declares: types, their fields (dotted paths), enumerators."""

    def __init__(self):
        self.types = {}
        self.enumerators = []


def parse_layout(preprocessed, our_type=OUR_TYPE):
    """Reads typedefs in the plain style of our own headers and passes over those of system headers."""
    tokens = re.findall(r"[A-Za-z_]\w*|\d\w*|[{}()\[\];,*=]|[^\s\w]", preprocessed)
    layout = Layout()
    at = 0
    while at < len(tokens):
        if tokens[at] != "typedef":
            at += 1
            continue
        at = parse_typedef(tokens, at + 1, layout, our_type)
    return layout


def parse_typedef(tokens, at, layout, our_type):
    kind = tokens[at]
    body = None
    while at < len(tokens) and tokens[at] != ";":
        if tokens[at] == "{" and kind in ("struct", "union", "enum"):
            end = matching(tokens, at)
            body = tokens[at + 1:end]
            at = end
        at += 1
    name = tokens[at - 1]
    if our_type.match(name):
        if kind == "enum" and body is not None:
            layout.enumerators += enumerators(body)
            layout.types[name] = []
        elif body is not None:
            layout.types[name] = fields(body)
        else:
            layout.types[name] = []
    return at + 1


def matching(tokens, at):
    depth = 0
    while True:
        depth += {"{": 1, "}": -1}.get(tokens[at], 0)
        if depth == 0:
            return at
        at += 1


def enumerators(body):
    return [token for before, token in zip([","] + body, body) if before == "," and token.isidentifier()]


def fields(body):
    """Dotted paths of all fields of a struct body, those of nested structs and unions included."""
    paths, statement, nested, at = [], [], None, 0
    while at < len(body):
        token = body[at]
        if token == "{":
            end = matching(body, at)
            nested = fields(body[at + 1:end])
            at = end
        elif token == ";":
            names = declarator_names(statement, nested is not None)
            if nested is not None:
                paths += [f"{name}.{inner}" for name in names for inner in nested] if names else nested
            paths += names
            statement, nested = [], None
        else:
            statement.append(token)
        at += 1
    return paths


def declarator_names(statement, has_body):
    """Names that one field declaration declares: `unsigned a, b[4]`, `void (*f)(int)`, `} u`."""
    if "(" in statement and not has_body:
        return [statement[statement.index("*", statement.index("(")) + 1]]
    flat, depth = [], 0
    for token in statement:
        depth += {"[": 1, "]": -1}.get(token, 0)
        if depth == 0 and token not in "[]":
            flat.append(token)
    if has_body:
        flat = [token for token in flat if token not in ("struct", "union")]
        return flat[-1:] if flat else []
    parts = " ".join(flat).split(",")
    return [part.split()[-1] for part in parts]


def constants(defines):
    """Names of macros with a number or a cast number for value, in the output of `cc -E -dM`."""
    found = []
    for name, value in re.findall(r"^#define ((?:CU|NVML_|nvml)\w*) (.+)$", defines, re.M):
        if '"' not in value:
            found.append(name)
    return sorted(found)


def probe_source(include, prologue, types, numbers):
    lines = [prologue, f'#include "{include}"', "#include <stdio.h>", "#include <stddef.h>",
             "int main(void) {"]
    for name, paths in types:
        lines.append(f'  printf("sizeof {name} %zu\\n", sizeof({name}));')
        lines += [f'  printf("{name}.{path} %zu\\n", offsetof({name}, {path}));' for path in paths]
    lines += [f'  printf("{name} %lld\\n", (long long)({name}));' for name in numbers]
    return "\n".join(lines + ["  return 0;", "}"])


def check_layouts(report, ours, vendors, our_include, vendor_include, prologue, same_version, newer):
    """Prints the same facts through both headers and compares the lines."""
    ours_text = ours.preprocess(f'#include "{our_include}"')
    theirs_text = vendors.preprocess(f'{prologue}\n#include "{vendor_include}"')
    layout = parse_layout(ours_text)
    their_words = set(re.findall(r"\w+", theirs_text))
    their_macros = set(re.findall(r"^#define (\w+)", vendors.preprocess(
        f'{prologue}\n#include "{vendor_include}"', "-dM"), re.M))
    own_types = layout.types
    numbers = [name for name in layout.enumerators if re.match(r"CU|NVML_|CUDA_", name)]
    numbers += constants(ours.preprocess(f'#include "{our_include}"', "-dM"))
    if not same_version:  # the last enumerators move with every version
        numbers = [name for name in numbers if not re.search(r"_(MAX|COUNT)$", name)]
    absent = [name for name in [*own_types, *numbers] if name not in their_words | their_macros]
    if same_version or newer:
        for name in absent:
            report.fail(f"{name} is declared by us and not by {vendor_include}")
    types = [(name, paths if same_version or newer else [])
             for name, paths in own_types.items() if name not in absent]
    numbers = [name for name in numbers if name not in absent]
    mine = ours.run_program(probe_source(our_include, "", types, numbers)).splitlines()
    theirs = vendors.run_program(probe_source(vendor_include, prologue, types, numbers)).splitlines()
    for left, right in zip(mine, theirs):
        if left != right:
            report.fail(f"{vendor_include}: {right}; ours: {left}")
    return len(mine)
