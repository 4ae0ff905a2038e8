"""proc_addresses.py exports LIBRARY PREFIX | query NAMES_FILE: what this process's driver has and answers.

exports: the symbols of the library that dlopen(LIBRARY) gives. query: cuGetProcAddress_v2
for each of them, without suffixes, in several CUDA versions and all stream modes; an answer is
[result, symbolStatus, address].
"""
import ctypes as C
import json
import re
import struct
import sys
import time

VERSIONS = (2000, 3020, 4000, 6050, 7000, 8000, 9020, 10000, 10020, 11000, 11020, 11030, 11040, 11060,
            11070, 11080, 12000, 12010, 12020, 12030, 12040, 12050, 12060, 12080, 12090, 13000, 13010)
FLAGS = (0, 1, 2)


class DlInfo(C.Structure):
    _fields_ = [("file", C.c_char_p), ("base", C.c_void_p), ("symbol", C.c_char_p), ("address", C.c_void_p)]


def file_of(address):
    info = DlInfo()
    dladdr = C.CDLL(None).dladdr
    dladdr.argtypes = [C.c_void_p, C.c_void_p]
    return info.file.decode() if dladdr(address, C.byref(info)) and info.file else ""


def dynamic_symbols(path):
    """Defined dynamic symbols of a 64-bit little-endian ELF file."""
    with open(path, "rb") as file:
        image = file.read()
    offset, = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, offset + i * size) for i in range(count)]
    names = []
    for section in sections:
        if section[1] != 11:  # SHT_DYNSYM
            continue
        strings = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            name, _, _, index = struct.unpack_from("<IBBH", image, at)
            if index != 0:
                end = image.index(b"\0", strings + name)
                names.append(image[strings + name:end].decode())
    return names


def main():
    if sys.argv[1] == "exports":
        opened, prefix = C.CDLL(sys.argv[2]), sys.argv[3]
        first = {"cu": "cuInit", "nvml": "nvmlInit_v2"}[prefix]
        library = file_of(C.cast(getattr(opened, first), C.c_void_p).value)
        symbols = sorted(name for name in dynamic_symbols(library) if re.match(prefix + "[A-Z]", name))
        print(json.dumps({"library": library, "symbols": symbols}))
        return
    cuda = C.CDLL("libcuda.so.1")
    with open(sys.argv[2]) as file:
        names = sorted({re.sub(r"_v\d+$", "", re.sub(r"_pt[sd][sz]$", "", name)) for name in json.load(file)})
    names.append("cuNoSuchEntry")
    cuda.cuInit(0)
    ask = cuda.cuGetProcAddress_v2
    ask.argtypes = [C.c_char_p, C.c_void_p, C.c_int, C.c_uint64, C.c_void_p]
    pointer, status = C.c_void_p(), C.c_int()
    answers, outside, files = {}, {}, {}
    begin = time.perf_counter()
    for name in names:
        for version in VERSIONS:
            for flags in FLAGS:
                pointer.value, status.value = None, -1
                result = ask(name.encode(), C.byref(pointer), version, flags, C.byref(status))
                answers[f"{name} {version} {flags}"] = (result, status.value, pointer.value or 0)
    seconds = time.perf_counter() - begin
    for _, _, address in answers.values():
        if address and address not in files:
            files[address] = file_of(address)
            outside[files[address]] = outside.get(files[address], 0) + 1
    print(json.dumps({"answers": answers, "outside": outside, "us": seconds / len(answers) * 1e6}))


main()
