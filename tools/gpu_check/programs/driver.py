"""The driver API through ctypes, for programs that must run without any framework."""
import ctypes as C

OUT_OF_MEMORY = 2


class Driver:
    def __init__(self, device=0):
        self.cuda = C.CDLL("libcuda.so.1")
        self.check(self.cuda.cuInit(0), "cuInit")
        self.device = C.c_int()
        self.check(self.cuda.cuDeviceGet(C.byref(self.device), device), "cuDeviceGet")
        self.context = C.c_void_p()
        self.check(self.cuda.cuDevicePrimaryCtxRetain(C.byref(self.context), self.device),
                   "cuDevicePrimaryCtxRetain")
        self.check(self.cuda.cuCtxSetCurrent(self.context), "cuCtxSetCurrent")

    @staticmethod
    def check(result, call):
        if result != 0:
            raise RuntimeError(f"{call}: {result}")

    def alloc(self, size):
        """(address, 0) or (0, the driver's error)."""
        pointer = C.c_uint64()
        result = self.cuda.cuMemAlloc_v2(C.byref(pointer), C.c_size_t(size))
        return pointer.value, result

    def free(self, pointer):
        self.check(self.cuda.cuMemFree_v2(C.c_uint64(pointer)), "cuMemFree")

    def memory(self):
        free, total = C.c_size_t(), C.c_size_t()
        self.check(self.cuda.cuMemGetInfo_v2(C.byref(free), C.byref(total)), "cuMemGetInfo")
        return free.value, total.value

    def total(self):
        total = C.c_size_t()
        self.check(self.cuda.cuDeviceTotalMem_v2(C.byref(total), self.device), "cuDeviceTotalMem")
        return total.value
