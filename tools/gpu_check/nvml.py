"""NVML through ctypes: the few calls the checks need, with no package to install."""
import ctypes as C


class ProcessInfo(C.Structure):
    _fields_ = [("pid", C.c_uint), ("bytes", C.c_ulonglong), ("gpu_instance", C.c_uint),
                ("compute_instance", C.c_uint)]


class Memory(C.Structure):
    _fields_ = [("total", C.c_ulonglong), ("free", C.c_ulonglong), ("used", C.c_ulonglong)]


class Memory2(C.Structure):
    _fields_ = [("version", C.c_uint), ("total", C.c_ulonglong), ("reserved", C.c_ulonglong),
                ("free", C.c_ulonglong), ("used", C.c_ulonglong)]


class NvmlError(Exception):
    pass


class Nvml:
    def __init__(self, index=0):
        self.library = C.CDLL("libnvidia-ml.so.1")
        self._check(self.library.nvmlInit_v2(), "nvmlInit_v2")
        self.device = C.c_void_p()
        self._check(self.library.nvmlDeviceGetHandleByIndex_v2(index, C.byref(self.device)),
                    "nvmlDeviceGetHandleByIndex_v2")

    @staticmethod
    def _check(result, call):
        if result != 0:
            raise NvmlError(f"{call}: {result}")

    def count(self):
        count = C.c_uint()
        self._check(self.library.nvmlDeviceGetCount_v2(C.byref(count)), "nvmlDeviceGetCount_v2")
        return count.value

    def processes(self):
        """[(pid, bytes)] of the compute processes on the GPU."""
        count = C.c_uint(512)
        table = (ProcessInfo * 512)()
        self._check(self.library.nvmlDeviceGetComputeRunningProcesses_v3(
            self.device, C.byref(count), table), "nvmlDeviceGetComputeRunningProcesses_v3")
        return [(table[i].pid, table[i].bytes) for i in range(count.value)]

    def memory(self):
        info = Memory()
        self._check(self.library.nvmlDeviceGetMemoryInfo(self.device, C.byref(info)),
                    "nvmlDeviceGetMemoryInfo")
        return {"total": info.total, "free": info.free, "used": info.used}

    def memory2(self):
        info = Memory2()
        info.version = C.sizeof(Memory2) | (2 << 24)
        self._check(self.library.nvmlDeviceGetMemoryInfo_v2(self.device, C.byref(info)),
                    "nvmlDeviceGetMemoryInfo_v2")
        return {"total": info.total, "reserved": info.reserved, "free": info.free,
                "used": info.used}

    def sm_clock(self):
        """MHz."""
        clock = C.c_uint()
        self._check(self.library.nvmlDeviceGetClockInfo(self.device, 1, C.byref(clock)),
                    "nvmlDeviceGetClockInfo")
        return clock.value

    def power_watts(self):
        milliwatts = C.c_uint()
        self._check(self.library.nvmlDeviceGetPowerUsage(self.device, C.byref(milliwatts)),
                    "nvmlDeviceGetPowerUsage")
        return milliwatts.value / 1e3

    def text(self, call, *arguments):
        buffer = C.create_string_buffer(256)
        function = getattr(self.library, call)
        self._check(function(*arguments, buffer, C.c_uint(256)), call)
        return buffer.value.decode()
