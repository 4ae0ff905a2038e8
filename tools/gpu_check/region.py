"""A slice's region file as a script sees it: flags, clients and wake_seq.

The numbers are those of abi/region.h, which is not there where the checks run; abi/region_test.cc compares them.
"""
import ctypes as C
import mmap
import os
import struct
import time

FLAGS = 124
CONFIG_SEQUENCE = 160
WAKE_SEQ = 188
CLIENTS = 8192
CLIENT_BYTES = 64
CLIENT_COUNT = 256
CLIENT_FLAGS = 20
CLIENT_TIMESLICE = 48
CLIENT_BUSY = 52
CLIENT_FOOTPRINT = 54
CLIENT_WINDOW = 56
SLOT_WORDS = 24576  # what follows the clients
FROZEN = 16
CLIENT_ACTIVE = 1
CLIENT_OPEN = 4
CLIENT_FROZEN = 8
CLIENT_SATURATES = 2
CLIENT_AWAKE = 128
CLIENT_CREDIT = 256
CLIENT_WAITS = 512

SYS_FUTEX, FUTEX_WAKE = 202, 1


class Region:
    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR)
        self.map = mmap.mmap(self.file, SLOT_WORDS)
        self.libc = C.CDLL(None)
        self.wake_seq = C.c_uint32.from_buffer(self.map, WAKE_SEQ)

    def word(self, at):
        return struct.unpack_from("<I", self.map, at)[0]

    def set_flag(self, bit, on):
        flags = self.word(FLAGS)
        struct.pack_into("<I", self.map, FLAGS, flags | bit if on else flags & ~bit)
        sequence = struct.unpack_from("<Q", self.map, CONFIG_SEQUENCE)[0]
        struct.pack_into("<Q", self.map, CONFIG_SEQUENCE, sequence + 1)
        self.wake_seq.value += 1
        self.libc.syscall(C.c_long(SYS_FUTEX), C.byref(self.wake_seq), C.c_int(FUTEX_WAKE), C.c_int(1 << 30), None,
                          None, C.c_int(0))

    def clients(self):
        """Where the flags of the clients in use are."""
        places = (CLIENTS + i * CLIENT_BYTES for i in range(CLIENT_COUNT))
        return [at + CLIENT_FLAGS for at in places if struct.unpack_from("<Q", self.map, at)[0] != 0]

    def published(self):
        """What each client's agent says now."""
        names = {CLIENT_ACTIVE: "active", CLIENT_SATURATES: "saturates", CLIENT_OPEN: "open", CLIENT_FROZEN: "frozen",
                 CLIENT_AWAKE: "awake", CLIENT_CREDIT: "credit", CLIENT_WAITS: "waits"}
        out = []
        for at in (at - CLIENT_FLAGS for at in self.clients()):
            flags = self.word(at + CLIENT_FLAGS)
            busy, footprint = struct.unpack_from("<HH", self.map, at + CLIENT_BUSY)
            out.append({"flags": [name for bit, name in names.items() if flags & bit],
                        "timeslice_us": self.word(at + CLIENT_TIMESLICE), "busy": busy, "footprint": footprint,
                        "window": self.word(at + CLIENT_WINDOW)})
        return out

    def wait(self, done, seconds):
        """Seconds until `done(flags)` holds for each client; None when it does not."""
        clients = self.clients()
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            if clients and all(done(self.word(at)) for at in clients):
                return time.perf_counter() - begin
        return None

    def freeze(self):
        """Seconds from the order until its agents say that nothing of it runs."""
        self.set_flag(FROZEN, True)
        return self.wait(lambda flags: flags & CLIENT_FROZEN, 5)

    def thaw(self):
        self.set_flag(FROZEN, False)
        return self.wait(lambda flags: flags & CLIENT_OPEN, 5)

    def close(self):
        del self.wake_seq
        self.map.close()
        os.close(self.file)
