// GPU time: timeslices between processes, RM's SET_TIMESLICE and FIFO_DISABLE_CHANNELS,
// utilisation.
//
// Times are long enough, and tolerances wide enough, for two slow cores that others use too; the
// timeline itself is exact (timeline.h); who runs when is tested in virtual time by turns_test.cc.
#include <string.h>
#include <unistd.h>

#include <cmath>
#include <vector>

#include "test_support.h"

using namespace allot::sim_test;
class SimSchedule : public Sim {};

namespace {

constexpr int64_t kSecond = 1'000'000'000;

// The process's RM objects, found as the shim finds them: by trying what libcuda's handles can be.
struct Rm {
  NvHandle client = 0, subdevice = 0, group = 0;
  std::vector<NvHandle> channels;
};

uint32_t control(NvHandle client, NvHandle object, uint32_t cmd, void* params, uint32_t size) {
  static auto* call =
      reinterpret_cast<int (*)(int, unsigned long, void*)>(cuda_symbol("allot_sim_ioctl"));
  NVOS54_PARAMETERS p{client, object, cmd, 0, reinterpret_cast<uint64_t>(params), size, 0};
  EXPECT_EQ(call(-1, ALLOT_RM_CONTROL, &p), 0);
  return p.status;
}

uint32_t disable(const Rm& rm, bool on) {
  NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS p{};
  p.bDisable = on ? 1 : 0;
  p.numChannels = static_cast<uint32_t>(rm.channels.size());
  for (size_t i = 0; i < rm.channels.size(); i++) {
    p.hClientList[i] = rm.client;
    p.hChannelList[i] = rm.channels[i];
  }
  return control(rm.client, rm.subdevice, NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS, &p, sizeof p);
}

uint32_t set_timeslice(const Rm& rm, uint64_t us) {
  NVA06C_CTRL_TIMESLICE_PARAMS p{us};
  return control(rm.client, rm.group, NVA06C_CTRL_CMD_SET_TIMESLICE, &p, sizeof p);
}

Rm find_rm() {
  Rm rm;
  rm.client = 0xc1d00001;
  for (NvHandle h = 0x5c000001; h < 0x5c000040; h++) {
    NVA06C_CTRL_TIMESLICE_PARAMS slice{};
    NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS none{};
    if (control(rm.client, h, NVA06C_CTRL_CMD_GET_TIMESLICE, &slice, sizeof slice) == NV_OK &&
        rm.group == 0) {
      rm.group = h;
    }
    if (control(rm.client, h, NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS, &none, sizeof none) == NV_OK) {
      rm.subdevice = h;
    }
  }
  for (NvHandle h = 0x5c000001; h < 0x5c000040; h++) {
    NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS one{};
    one.numChannels = 1;
    one.hClientList[0] = rm.client;
    one.hChannelList[0] = h;
    if (control(rm.client, rm.subdevice, NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS, &one, sizeof one) ==
        NV_OK) {
      rm.channels.push_back(h);
    }
  }
  return rm;
}

// A process that keeps kernels of `kernel_ns` coming for a stretch and says how much it got done.
void worker(uint64_t kernel_ns, uint64_t timeslice_us) {
  start();
  if (timeslice_us != 0) {
    EXPECT_EQ(set_timeslice(find_rm(), timeslice_us), NV_OK);
  }
  tell("ready");
  const int64_t from = std::stoll(listen());
  while (clock_ns() < from) usleep(200);
  tell(std::to_string(keep_busy(nullptr, kernel_ns, from + 3 * kSecond)));
}

// Shares of two workers that run at the same time, in percent.
void shares(std::function<void()> first, std::function<void()> second, double* a, double* both) {
  Child one(std::move(first)), two(std::move(second));
  EXPECT_EQ(one.read(), "ready");
  EXPECT_EQ(two.read(), "ready");
  const std::string from = std::to_string(clock_ns() + kSecond / 10);
  one.write(from);
  two.write(from);
  const double x = std::stod(one.read()), y = std::stod(two.read());
  EXPECT_TRUE(one.finish());
  EXPECT_TRUE(two.finish());
  *a = 100 * x / (x + y);
  *both = 100 * (x + y) / (3.0 * kSecond);
}

// The first one's share in percent is `wanted` within `tolerance`. Returns what both got together.
// A busy machine may keep a worker from its CPU for some tenths of a second: it is measured again,
// twice at most, while a schedule that is wrong is wrong each time.
double expect_share(const std::function<void()>& first, const std::function<void()>& second,
                    double wanted, double tolerance) {
  double share = 0, both = 0;
  for (int i = 0; i < 3; ++i) {
    shares(first, second, &share, &both);
    if (std::abs(share - wanted) <= tolerance && both > 80) break;
  }
  EXPECT_NEAR(share, wanted, tolerance);
  return both;
}

}  // namespace

TEST_F(SimSchedule, TwoBusyProcessesShareEqually) {
  const double both =
      expect_share([] { worker(1'000'000, 0); }, [] { worker(1'000'000, 0); }, 50, 10);
  EXPECT_NEAR(both, 91, 7);  // a switch costs: 9 % lost on the card
}

TEST_F(SimSchedule, TimeslicesAreWeights) {
  expect_share([] { worker(1'000'000, 2000); }, [] { worker(1'000'000, 6000); }, 25, 5);
}

TEST_F(SimSchedule, TimeslicesHoldForLongKernels) {
  expect_share([] { worker(20'000'000, 7000); }, [] { worker(20'000'000, 3000); }, 70, 7);
}

TEST_F(SimSchedule, AKernelThatTellsSaysAtItsBeginningWhatWasDoneBefore) {
  in_child([] {
    start();
    void* word = nullptr;
    EXPECT_CU(CU(cuMemHostAlloc)(&word, size_t{8}, unsigned{CU_MEMHOSTALLOC_DEVICEMAP}));
    const int64_t from = clock_ns();
    EXPECT_CU(spin_told(nullptr, 20'000'000, reinterpret_cast<uint64_t>(word), 77));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_GE(clock_ns() - from, 20'000'000);
    EXPECT_EQ(*static_cast<uint64_t*>(word), 77u);
    EXPECT_CU(spin_told(nullptr, 1, 0x1000, 0));
    EXPECT_EQ(CU(cuCtxSynchronize)(), CUDA_ERROR_ILLEGAL_ADDRESS);
  });
}

TEST_F(SimSchedule, AnIdleNeighbourCostsNothing) {
  Child idle([] {
    start();
    EXPECT_CU(spin(nullptr, 1000));
    EXPECT_CU(CU(cuCtxSynchronize)());
    tell("ready");
    listen();
  });
  EXPECT_EQ(idle.read(), "ready");
  in_child([] {
    start();
    EXPECT_CU(spin(nullptr, 1));  // loads the module
    double busy = 0;
    for (int i = 0; i < 3 && std::abs(busy - 100) > 5; ++i) {  // as in expect_share
      const int64_t from = clock_ns();
      const uint64_t done = keep_busy(nullptr, 1'000'000, from + kSecond);
      busy = 100.0 * static_cast<double>(done) / static_cast<double>(clock_ns() - from);
    }
    EXPECT_NEAR(busy, 100, 5);
    nvmlDevice_t device = nullptr;
    nvmlUtilization_t utilization{};
    EXPECT_EQ(NVML(nvmlInit_v2)(), NVML_SUCCESS);
    EXPECT_EQ(NVML(nvmlDeviceGetHandleByIndex_v2)(0u, &device), NVML_SUCCESS);
    EXPECT_EQ(NVML(nvmlDeviceGetUtilizationRates)(device, &utilization), NVML_SUCCESS);
    EXPECT_GE(utilization.gpu, 85u);
  });
  idle.write("go");
  EXPECT_TRUE(idle.finish());
}

TEST_F(SimSchedule, DisabledChannelsStopAKernelAndKeepItsProgress) {
  in_child([] {
    start();
    const Rm rm = find_rm();
    ASSERT_EQ(rm.channels.size(), 8u);
    CUevent begin = nullptr, end = nullptr;
    EXPECT_CU(CU(cuEventCreate)(&begin, 0u));
    EXPECT_CU(CU(cuEventCreate)(&end, 0u));
    EXPECT_CU(CU(cuEventRecord)(begin, CUstream{nullptr}));
    EXPECT_CU(spin(nullptr, 300'000'000));
    EXPECT_CU(CU(cuEventRecord)(end, CUstream{nullptr}));
    usleep(100'000);
    const int64_t from = clock_ns();
    EXPECT_EQ(disable(rm, true), NV_OK);
    usleep(500'000);
    EXPECT_EQ(CU(cuEventQuery)(end), CUDA_ERROR_NOT_READY);  // alone it would have ended long ago
    EXPECT_EQ(disable(rm, false), NV_OK);
    const double stopped_ms = static_cast<double>(clock_ns() - from) / 1e6;
    EXPECT_CU(CU(cuEventSynchronize)(end));
    float ms = 0;
    EXPECT_CU(CU(cuEventElapsedTime)(&ms, begin, end));
    EXPECT_NEAR(ms, 300 + stopped_ms, 40);  // starting over would take 100 more
  });
}

TEST_F(SimSchedule, WindowsAreACeiling) {
  in_child([] {
    start();
    const Rm rm = find_rm();
    const int64_t until = clock_ns() + 2 * kSecond;
    // Work is there at all times; the channels are on for 30 of every 100 ms.
    for (int i = 0; i < 400; i++) EXPECT_CU(spin(nullptr, 5'000'000));
    while (clock_ns() < until) {
      const int64_t window = clock_ns();
      EXPECT_EQ(disable(rm, false), NV_OK);
      while (clock_ns() < window + 30'000'000) usleep(500);
      EXPECT_EQ(disable(rm, true), NV_OK);
      while (clock_ns() < window + 100'000'000) usleep(500);
    }
    nvmlDevice_t device = nullptr;
    nvmlUtilization_t utilization{};
    EXPECT_EQ(NVML(nvmlInit_v2)(), NVML_SUCCESS);
    EXPECT_EQ(NVML(nvmlDeviceGetHandleByIndex_v2)(0u, &device), NVML_SUCCESS);
    EXPECT_EQ(NVML(nvmlDeviceGetUtilizationRates)(device, &utilization), NVML_SUCCESS);
    EXPECT_NEAR(utilization.gpu, 30, 6);
  });
}

TEST_F(SimSchedule, KilledWhileStoppedHurtsNobody) {
  Child stopped([] {
    start();
    EXPECT_CU(spin(nullptr, 10 * kSecond));
    EXPECT_EQ(disable(find_rm(), true), NV_OK);
    tell("ready");
    pause();
  });
  EXPECT_EQ(stopped.read(), "ready");
  Child other([] {
    start();
    const int64_t from = clock_ns();
    EXPECT_CU(spin(nullptr, 1'000'000));
    EXPECT_CU(CU(cuCtxSynchronize)());
    EXPECT_LT(clock_ns() - from, kSecond);
  });
  EXPECT_TRUE(other.finish());
  stopped.kill();
  in_child([] {
    start();
    EXPECT_CU(spin(nullptr, 1'000'000));
    EXPECT_CU(CU(cuCtxSynchronize)());
  });
}

TEST_F(SimSchedule, ForeignHandlesAreRefused) {
  in_child([] {
    start();
    Rm rm = find_rm();
    NVA06C_CTRL_TIMESLICE_PARAMS p{1000};
    EXPECT_EQ(control(0xc1d09999, rm.group, NVA06C_CTRL_CMD_SET_TIMESLICE, &p, sizeof p),
              NV_ERR_INVALID_CLIENT);
    EXPECT_EQ(control(rm.client, 0x1234, NVA06C_CTRL_CMD_SET_TIMESLICE, &p, sizeof p),
              NV_ERR_INVALID_OBJECT_HANDLE);
    EXPECT_EQ(control(rm.client, rm.group, NVA06C_CTRL_CMD_SET_TIMESLICE, &p, 4),
              NV_ERR_INVALID_PARAM_STRUCT);
    rm.channels.assign(1, rm.group);
    EXPECT_EQ(disable(rm, true), NV_ERR_INVALID_OBJECT_HANDLE);
    rm.channels.clear();
    EXPECT_EQ(disable(rm, true), NV_OK);  // and nothing happens
    EXPECT_CU(spin(nullptr, 1000));
    EXPECT_CU(CU(cuCtxSynchronize)());
  });
}
