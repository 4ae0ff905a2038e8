// allot-bench as a whole process on the software GPU: exit statuses, the fields that scripts read,
// and that figures of one result agree with each other. Sizes of times are only bounded loosely:
// the test machine is slow and shared.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

namespace allot::bench {
namespace {

constexpr uint64_t kMiB = 1 << 20;

struct Ran {
  int status = -1;
  std::string out;
  nlohmann::json json() const { return nlohmann::json::parse(out); }
};

// Runs a shell line; `out` takes what it prints on both streams.
Ran shell(const std::string& line) {
  Ran ran;
  FILE* pipe = popen(("{ " + line + "; } 2>&1").c_str(), "r");
  if (pipe == nullptr) return ran;
  std::array<char, 4096> buffer;
  size_t got = 0;
  while ((got = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    ran.out.append(buffer.data(), got);
  }
  const int status = pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return ran;
}

class BenchOnSoftwareGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (access(ALLOT_SIM_LIBRARY, R_OK) != 0) GTEST_SKIP() << "no software GPU in this build";
    char folder[] = "/tmp/allot-bench-test-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
  }
  void TearDown() override {
    if (!folder_.empty()) shell("rm -rf " + folder_);
  }

  std::string environment(const std::string& gpus) const {
    return "env -u LD_PRELOAD ALLOT_SIM_DIR=" + folder_ + " ALLOT_SIM_GPUS=" + gpus +
           " LD_LIBRARY_PATH=" ALLOT_SIM_FOLDER " ";
  }
  Ran bench(const std::string& arguments, const std::string& gpus = "1x4G") const {
    return shell(environment(gpus) + ALLOT_BENCH_PROGRAM " " + arguments);
  }

  std::string folder_;
};

TEST_F(BenchOnSoftwareGpu, LoadCountsWhatItDid) {
  const Ran ran = bench("load --seconds 1.2 --kernel-us 500 --inflight 8 --json");
  ASSERT_EQ(ran.status, 0) << ran.out;
  const nlohmann::json result = ran.json();
  const double launches = result["launches"];
  EXPECT_GT(launches, 0);
  EXPECT_EQ(std::fmod(launches, 8), 0);
  EXPECT_EQ(result["kernels"], result["launches"]);
  EXPECT_GE(result["wall_s"].get<double>(), 1.2);
  const double worked_s = launches * result["solo_us"].get<double>() / 1e6;
  EXPECT_NEAR(result["achieved"].get<double>(), worked_s / result["wall_s"].get<double>(), 1e-9);
  EXPECT_EQ(result["per_second"].size(), static_cast<size_t>(result["wall_s"].get<double>()));
}

TEST_F(BenchOnSoftwareGpu, LoadOfAGraphLaunchesTwentyKernelsAtOnce) {
  const Ran ran = bench("load --graph --seconds 0.5 --kernel-us 100 --inflight 2 --json");
  ASSERT_EQ(ran.status, 0) << ran.out;
  const nlohmann::json result = ran.json();
  EXPECT_EQ(result["kernels"].get<uint64_t>(), 20 * result["launches"].get<uint64_t>());
  EXPECT_GT(result["solo_us"].get<double>(), 20 * 100 * 0.5);
}

TEST_F(BenchOnSoftwareGpu, LoadTakesAGivenAmountOfWork) {
  const Ran ran = bench("load --seconds 0.3 --iters 200000 --solo-us 200 --json");
  ASSERT_EQ(ran.status, 0) << ran.out;
  EXPECT_EQ(ran.json()["iters"], 200000);
  EXPECT_EQ(ran.json()["solo_us"], 200.0);
}

// Calibrated by what it got under its ceiling, it had all of the GPU by its own account.
TEST_F(BenchOnSoftwareGpu, LoadInASliceWithACeilingKnowsWhatTheGpuDoesAlone) {
  // Kernels longer than what its ceiling lets run at a time, too.
  for (const char* flags :
       {"--kernel-us 500", "--graph --kernel-us 100", "--kernel-us 20000 --inflight 2"}) {
    const std::string program = ALLOT_BENCH_PROGRAM;
    const Ran ran = shell(environment("1x4G") + "ALLOT_DIR=" + folder_ + " " +
                          program.substr(0, program.rfind('/')) +
                          "/allot run --sim --name limited --gpu-max 25 -- " + program +
                          " load --seconds 1.5 --json " + flags);
    ASSERT_EQ(ran.status, 0) << ran.out;
    const nlohmann::json result = ran.json();
    EXPECT_LT(result["achieved"].get<double>(), 0.4) << result;
    EXPECT_EQ(result["limit"]["max_percent"], 25.0);
    EXPECT_NE(result["note"].get<std::string>().find("slice limited (ceiling 25.0 %)"),
              std::string::npos);
  }
  EXPECT_TRUE(bench("load --seconds 0.2 --json").json()["limit"].is_null());
}

TEST_F(BenchOnSoftwareGpu, LatencyReportsOrderedPercentiles) {
  const Ran ran = bench("latency --seconds 0.6 --kernel-us 200 --period-us 5000 --json");
  ASSERT_EQ(ran.status, 0) << ran.out;
  const nlohmann::json result = ran.json();
  EXPECT_GT(result["requests"].get<int>(), 5);
  EXPECT_GT(result["p50"].get<double>(), 0.1);
  EXPECT_LE(result["p50"], result["p90"]);
  EXPECT_LE(result["p90"], result["p99"]);
  EXPECT_LE(result["p99"], result["p999"]);
  EXPECT_LE(result["p999"], result["max"]);
}

TEST_F(BenchOnSoftwareGpu, ShareRunsSlicesSideBySide) {
  const std::string file = folder_ + "/calibrations";
  const Ran ran =
      bench("share --sim --no-allot --json --bins --seconds 1 --warm 0.3 --calibration " + file +
            " --slice load=graph,kernel-us=100 --slice load=graph,kernel-us=100 --slice load=idle "
            "--slice load=request,period-us=20000");
  ASSERT_EQ(ran.status, 0) << ran.out;
  const nlohmann::json result = ran.json();
  ASSERT_EQ(result["phases"].size(), 1u);
  const nlohmann::json& slices = result["phases"][0]["slices"];
  ASSERT_EQ(slices.size(), 4u);
  EXPECT_GT(slices[0]["gpu_time"].get<double>(), 0.1) << "the two halve what the third leaves";
  EXPECT_NEAR(slices[0]["gpu_time"].get<double>(), slices[1]["gpu_time"].get<double>(), 0.15);
  EXPECT_EQ(slices[2]["gpu_time"], 0.0);
  EXPECT_GT(slices[3]["waits"]["count"].get<int>(), 10);
  EXPECT_EQ(slices[0]["per_second"].size(), 1u);
  EXPECT_GE(result["work_per_10ms"][0].size(), 130u);
  // The two of a kind were calibrated once.
  EXPECT_EQ(result["calibrations"].size(), 3u);
  EXPECT_EQ(access(file.c_str(), R_OK), 0);
}

TEST_F(BenchOnSoftwareGpu, ShareTakesASliceOfTheChosenGpuAlone) {
  const Ran ran = shell(environment("2x4G") + "ALLOT_DIR=" + folder_ + " " + ALLOT_BENCH_PROGRAM +
                        " share --sim --json --gpu 1 --seconds 0.3 --warm 0.3 "
                        "--slice share=50,load=graph,kernel-us=100");
  ASSERT_EQ(ran.status, 0) << ran.out;
  const nlohmann::json result = ran.json();
  EXPECT_EQ(result["gpu_uuid"].get<std::string>().rfind("GPU-", 0), 0u) << result["gpu_uuid"];
  const nlohmann::json& process = result["phases"][0]["slices"][0]["ps"][0];
  ASSERT_EQ(process["gpus"].size(), 1u) << process;
  EXPECT_EQ(process["gpus"][0]["index"], 1) << process;
}

TEST_F(BenchOnSoftwareGpu, ShareMeasuresTheSameLoadsNativelyAndJudgesWhatWasPromised) {
  const Ran ran = shell(environment("1x4G") + "ALLOT_DIR=" + folder_ + " " + ALLOT_BENCH_PROGRAM +
                        " share --sim --json --native --judge --seconds 0.5 --warm 0.3 "
                        "--slice wait:50 --slice full:50");
  const nlohmann::json result = ran.json();
  const nlohmann::json& phase = result["phases"][0];
  EXPECT_EQ(ran.status, phase["promises_kept"] ? 0 : 1) << ran.out;
  for (const nlohmann::json& slice : phase["slices"]) {
    EXPECT_GT(slice["native"]["achieved"].get<double>(), 0);
    EXPECT_GT(slice["native"]["waits"]["count"].get<int>(), 1);
    EXPECT_GT(slice["waits_alone"]["p50"].get<double>(), 0.1);
    EXPECT_LE(slice["waits"]["p99"].get<double>(), slice["waits"]["max"].get<double>());
    EXPECT_EQ(slice["promises"][0]["what"], "progress %");
    EXPECT_EQ(slice["promises"][0]["limit"], 49.0);
  }
}

TEST_F(BenchOnSoftwareGpu, ShareSaysWhichSliceFailed) {
  const Ran ran = shell("ALLOT_SIM_FAULTS=cuStreamCreate:nth=1:result=2 " + environment("1x4G") +
                        ALLOT_BENCH_PROGRAM " share --sim --no-allot --slice load=idle");
  EXPECT_EQ(ran.status, 1) << ran.out;
  EXPECT_NE(ran.out.find("idle"), std::string::npos) << ran.out;
}

TEST_F(BenchOnSoftwareGpu, AllocStopsAtItsLimitForEveryKind) {
  for (const char* kind : {"linear", "async", "vmm", "managed", "array", "pitch", "graph"}) {
    const Ran ran =
        bench("alloc --step 16M --limit 64M --json --kind " + std::string(kind), "1x1G");
    ASSERT_EQ(ran.status, 0) << kind << ": " << ran.out;
    const nlohmann::json result = ran.json();
    EXPECT_EQ(result["granted_bytes"], 64 * kMiB) << kind;
    EXPECT_EQ(result["steps"], 4) << kind;
    EXPECT_TRUE(result["refused_with"].is_null()) << kind;
    EXPECT_EQ(result["mismatches"], 0) << kind;
    if (std::string(kind) != "managed") {
      EXPECT_GE(result["memory_before"]["free"].get<uint64_t>(),
                result["memory_after"]["free"].get<uint64_t>() + 64 * kMiB)
          << kind;
    }
  }
}

TEST_F(BenchOnSoftwareGpu, AllocEndsWithTheDriversError) {
  const Ran ran = bench("alloc --step 64M --json", "1x1G");
  ASSERT_EQ(ran.status, 0) << ran.out;
  const nlohmann::json result = ran.json();
  EXPECT_EQ(result["refused_with"], "CUDA_ERROR_OUT_OF_MEMORY");
  EXPECT_GT(result["reject_us"].get<double>(), 0);
  EXPECT_GT(result["steps"].get<int>(), 0);
  EXPECT_LE(result["granted_bytes"].get<uint64_t>(), 1024 * kMiB);
  EXPECT_LT(result["memory_after"]["free"].get<uint64_t>(), 64 * kMiB);
}

TEST_F(BenchOnSoftwareGpu, SigtermEndsTheHoldAtOnce) {
  const auto begin = std::chrono::steady_clock::now();
  const Ran ran =
      shell(environment("1x1G") +
            "bash -c '" ALLOT_BENCH_PROGRAM " alloc --step 64M --limit 64M --hold 300 --json > " +
            folder_ + "/out & program=$!; for i in $(seq 600); do grep -q granted " + folder_ +
            "/out && break; kill -0 $program || break; sleep 0.05; done; kill -TERM $program; wait "
            "$program'");
  EXPECT_EQ(ran.status, 0) << ran.out;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

TEST_F(BenchOnSoftwareGpu, HooksNeedASlice) {
  const Ran ran = bench("hooks --json");
  EXPECT_EQ(ran.status, 125);
  EXPECT_NE(ran.out.find("nothing to compare"), std::string::npos) << ran.out;
}

TEST_F(BenchOnSoftwareGpu, BadInputIsOneLineAndExit2) {
  for (const char* arguments :
       {"alloc --step 8X", "alloc --step 0", "alloc --kind paper", "alloc --step 8G --kind array",
        "share --slice load=paper", "share --slice share=0.01",
        "share --slice load=eager --phase max=50/max=20",
        "share --no-allot --slice load=eager --phase max=50",
        "share --no-allot --native --slice full"}) {
    const Ran ran = bench(arguments);
    EXPECT_EQ(ran.status, 2) << arguments << ": " << ran.out;
    EXPECT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 1) << ran.out;
  }
  for (const char* arguments :
       {"", "load --seconds 0", "load --inflight 0", "latency --seconds x"}) {
    EXPECT_EQ(bench(arguments).status, 2) << arguments;
  }
  EXPECT_EQ(bench("alloc --gpu 9 --step 1M").status, 125);
}

TEST(BenchWithoutADriver, SaysSoAndEndsWith125) {
  const Ran ran = shell("env -u LD_PRELOAD -u LD_LIBRARY_PATH " ALLOT_BENCH_PROGRAM " load");
  if (ran.status == 0) GTEST_SKIP() << "this machine has a driver";
  EXPECT_EQ(ran.status, 125);
  EXPECT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 1) << ran.out;
}

}  // namespace
}  // namespace allot::bench
