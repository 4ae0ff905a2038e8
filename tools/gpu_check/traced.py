"""One thread of another process, held alone or made to end, as a debugger or a filter that kills threads does it."""
import ctypes as C
import os

PTRACE_PEEKTEXT, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_DETACH = 1, 12, 13, 17
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000  # waits for threads, too
REGISTERS, RAX, RDI, ORIG_RAX, RIP = 27, 10, 14, 15, 16  # of user_regs_struct, x86-64, as 64-bit words
SYSCALL, SYS_EXIT = 0x050f, 60


def thread_named(pid, name):
    """Its thread id; None when there is none."""
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm") as file:
            if file.read().strip() == name:
                return int(tid)
    return None


class HeldThread:
    """Held from here on. Raises OSError where tracing is not allowed. One thread of ours does all of it."""

    def __init__(self, tid):
        self.tid = tid
        self.libc = C.CDLL(None, use_errno=True)
        self.libc.ptrace.restype = C.c_long
        self.call(PTRACE_SEIZE)
        self.call(PTRACE_INTERRUPT)
        os.waitpid(tid, WALL)

    def call(self, request, address=None, data=None):
        C.set_errno(0)
        result = self.libc.ptrace(C.c_long(request), C.c_long(self.tid), C.c_void_p(address), data)
        if result == -1 and C.get_errno() != 0:
            raise OSError(C.get_errno(), os.strerror(C.get_errno()))
        return result

    def detach(self):
        self.call(PTRACE_DETACH)

    def end(self):
        """It is in or after a system call: execute that instruction again, as exit of this thread alone."""
        registers = (C.c_uint64 * REGISTERS)()
        self.call(PTRACE_GETREGS, data=C.byref(registers))
        code = self.call(PTRACE_PEEKTEXT, address=registers[RIP] - 2)
        if code & 0xffff != SYSCALL:
            self.detach()
            raise OSError(0, "the thread is in no system call")
        registers[RIP] -= 2
        registers[RAX], registers[RDI], registers[ORIG_RAX] = SYS_EXIT, 0, 2**64 - 1
        self.call(PTRACE_SETREGS, data=C.byref(registers))
        self.detach()
