"""life.py KERNELS [green]: a program on the bare driver API that does as it is told by lines on stdin.

KERNELS is a PTX file, or the source that has it as a string. green: it works in a green context of half of the
multiprocessors.

hold BYTES [KIND]  takes memory in several kinds, or of cuMemAlloc only (KIND linear), fills each 16 MiB
                   with a value of its own
check              how many 32-bit words are not what was written, and whether addresses are the same
load KIND          keeps the GPU busy until further notice: 1ms, 50ms or graph (20 kernels of 50 us)
rate FROM TO       launches per second in that time of the monotonic clock; how many batches ended in it
fault              stores to a bad address; answers the driver's error
end
SIGUSR1 at any moment: exit(), from another thread than the one that works.
"""
import ctypes as C
import json
import os
import select
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from driver import Driver  # noqa: E402

PIECE = 16 << 20
BLOCK = 256 << 20
THREADS = 256


class Program:
    def __init__(self, ptx, green):
        self.driver = Driver()
        self.cuda = self.driver.cuda
        if green:
            self.enter_green_context()
        self.module = C.c_void_p()
        with open(ptx) as file:
            text = file.read()
        if 'R"(' in text:  # src/bench/kernels.cc, which has it as a string
            text = text.split('R"(', 1)[1].split(')"', 1)[0]
        self.call("cuModuleLoadData", C.byref(self.module), text.encode() + b"\0")
        self.kernels = {name: self.kernel(name) for name in ("allot_spin", "allot_fill", "allot_check")}
        self.stream = C.c_void_p()
        self.call("cuStreamCreate", C.byref(self.stream), C.c_uint(1))
        units = C.c_int()
        self.call("cuDeviceGetAttribute", C.byref(units), C.c_int(16), self.driver.device)
        self.blocks_wide = units.value // 2 if green else units.value
        self.counter = self.driver.alloc(512)[0]
        self.pieces = []
        self.kind = None
        self.ends = []
        self.graph = None

    def enter_green_context(self):
        class Resource(C.Structure):  # CUdevResource: type, padding, then what kind it is; 144 bytes (CUDA 12.4-13)
            _fields_ = [("bytes", C.c_uint8 * 144)]

        whole, half, rest = Resource(), Resource(), Resource()
        multiprocessors = 1
        self.call("cuDeviceGetDevResource", self.driver.device, C.byref(whole), C.c_int(multiprocessors))
        units = C.c_int()
        self.call("cuDeviceGetAttribute", C.byref(units), C.c_int(16), self.driver.device)
        groups = C.c_uint(1)
        self.call("cuDevSmResourceSplitByCount", C.byref(half), C.byref(groups), C.byref(whole), C.byref(rest),
                  C.c_uint(0), C.c_uint(units.value // 2))
        description, green, context = C.c_void_p(), C.c_void_p(), C.c_void_p()
        self.call("cuDevResourceGenerateDesc", C.byref(description), C.byref(half), C.c_uint(1))
        default_stream = 1
        self.call("cuGreenCtxCreate", C.byref(green), description, self.driver.device, C.c_uint(default_stream))
        self.call("cuCtxFromGreenCtx", C.byref(context), green)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *arguments):
        result = getattr(self.cuda, name)(*arguments)
        if result != 0:
            raise RuntimeError(f"{name}: {result}")

    def kernel(self, name):
        function = C.c_void_p()
        self.call("cuModuleGetFunction", C.byref(function), self.module, name.encode())
        return function

    def launch(self, name, *values):
        holders = [C.c_uint32(v) if small else C.c_uint64(v) for v, small in values]
        parameters = (C.c_void_p * len(holders))(*[C.cast(C.byref(h), C.c_void_p) for h in holders])
        self.call("cuLaunchKernel", self.kernels[name], C.c_uint(self.blocks_wide), C.c_uint(1), C.c_uint(1),
                  C.c_uint(THREADS), C.c_uint(1), C.c_uint(1), C.c_uint(0), self.stream, parameters, None)

    def wait(self):
        self.call("cuStreamSynchronize", self.stream)

    def take(self, index, size):
        """Linear memory, stream-ordered memory and mapped (VMM) memory in turn."""
        pointer = C.c_uint64()
        if index % 3 == 1:
            self.call("cuMemAllocAsync", C.byref(pointer), C.c_size_t(size), self.stream)
            return pointer.value
        if index % 3 == 2:
            return self.mapped(size)
        self.call("cuMemAlloc_v2", C.byref(pointer), C.c_size_t(size))
        return pointer.value

    def mapped(self, size):
        class Property(C.Structure):
            _fields_ = [("type", C.c_int), ("handles", C.c_int), ("location", C.c_int), ("id", C.c_int),
                        ("meta", C.c_void_p), ("flags", C.c_uint8 * 8)]

        class Access(C.Structure):
            _fields_ = [("location", C.c_int), ("id", C.c_int), ("flags", C.c_int)]

        wanted = Property(1, 0, 1, 0, None)
        access = Access(1, 0, 3)
        handle, pointer = C.c_uint64(), C.c_uint64()
        self.call("cuMemCreate", C.byref(handle), C.c_size_t(size), C.byref(wanted), C.c_uint64(0))
        self.call("cuMemAddressReserve", C.byref(pointer), C.c_size_t(size), C.c_size_t(0), C.c_uint64(0),
                  C.c_uint64(0))
        self.call("cuMemMap", pointer, C.c_size_t(size), C.c_size_t(0), handle, C.c_uint64(0))
        self.call("cuMemSetAccess", pointer, C.c_size_t(size), C.byref(access), C.c_size_t(1))
        return pointer.value

    def hold(self, total, kinds="all"):
        block = min(BLOCK, total)
        for index in range(total // block):
            base = self.take(index if kinds == "all" else 0, block)
            for offset in range(0, block, PIECE):
                size = min(PIECE, block - offset)
                value = (0x9e3779b1 * (len(self.pieces) + 1)) & 0xffffffff
                self.pieces.append((base + offset, size, value))
                self.launch("allot_fill", (base + offset, False), (size // 4, False), (value, True))
        self.wait()
        return {"held": total // block * block, "pieces": len(self.pieces), "pid": os.getpid()}

    def check(self):
        self.call("cuMemsetD32_v2", C.c_uint64(self.counter), C.c_uint(0), C.c_size_t(2))
        self.call("cuCtxSynchronize")
        for base, size, value in self.pieces:
            self.launch("allot_check", (base, False), (size // 4, False), (value, True),
                        (self.counter, False))
        self.wait()
        wrong = C.c_uint64()
        self.call("cuMemcpyDtoH_v2", C.byref(wrong), C.c_uint64(self.counter), C.c_size_t(8))
        return {"mismatches": wrong.value, "pieces": len(self.pieces)}

    def iterations_for(self, us):
        """Spin steps that take so long; measured once, alone or nearly so."""
        steps = 20000
        best = 1e9
        self.launch("allot_spin", (steps, False), (self.counter + 256, False))
        self.wait()
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(8):
                self.launch("allot_spin", (steps * 8, False), (self.counter + 256, False))
            self.wait()
            best = min(best, (time.perf_counter() - begin) / 64 / steps)
        return max(1, int(us / 1e6 / best))

    def load(self, kind):
        us, self.batch = {"1ms": (1000, 16), "50ms": (50000, 2), "graph": (50, 8)}[kind]
        self.steps = self.iterations_for(us)
        if kind == "graph":
            captured, self.graph = C.c_void_p(), C.c_void_p()
            self.call("cuStreamBeginCapture_v2", self.stream, C.c_int(1))
            for _ in range(20):
                self.launch("allot_spin", (self.steps, False), (self.counter + 256, False))
            self.call("cuStreamEndCapture", self.stream, C.byref(captured))
            self.call("cuGraphInstantiateWithFlags", C.byref(self.graph), captured, C.c_uint64(0))
        self.kind = kind
        return {"loading": kind, "steps": self.steps, "pid": os.getpid()}

    def work(self):
        for _ in range(self.batch):
            if self.graph is not None:
                self.call("cuGraphLaunch", self.graph, self.stream)
            else:
                self.launch("allot_spin", (self.steps, False), (self.counter + 256, False))
        self.wait()
        self.ends.append(time.monotonic())

    def rate(self, begin, end):
        """Batches that lie across an end count in part."""
        done, last = 0.0, None
        longest = 0.0
        for at in self.ends:
            if last is not None and at > last:
                overlap = min(at, end) - max(last, begin)
                if overlap > 0:
                    done += self.batch * overlap / (at - last)
                    longest = max(longest, at - last)
            last = at
        ended = sum(begin <= at < end for at in self.ends)
        return {"rate": done / (end - begin), "ended": ended, "longest_batch_s": longest}

    def fault(self):
        try:
            self.launch("allot_fill", (0x10, False), (1024, False), (1, True))
            self.wait()
        except RuntimeError as error:
            return {"error": str(error)}
        return {"error": None}

    def answer(self, line):
        word, *rest = line.split()
        if word == "rate":
            return self.rate(float(rest[0]), float(rest[1]))
        if word == "hold":
            return self.hold(int(rest[0]), *rest[1:])
        return {"load": self.load, "check": self.check, "fault": self.fault}[word](*rest)


def exit_when_told():
    """In a thread of its own, because the other one may be blocked in the driver."""
    signal.sigwait({signal.SIGUSR1})
    C.CDLL(None).exit(3)


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    threading.Thread(target=exit_when_told, daemon=True).start()
    program = Program(sys.argv[1], "green" in sys.argv[2:])
    print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)
    buffer = b""
    while True:
        busy = program.kind is not None
        if select.select([0], [], [], 0 if busy else None)[0]:
            piece = os.read(0, 65536)
            if not piece:
                return
            buffer += piece
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                if line.strip() == b"end":
                    return
                print(json.dumps(program.answer(line.decode())), flush=True)
        elif busy:
            program.work()


main()
