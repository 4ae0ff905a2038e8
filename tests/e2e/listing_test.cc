// ps, gpus, set, doctor and demo while programs run.
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <sstream>

#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using nlohmann::json;

class Listing : public Machine {
 protected:
  json slice(const std::string& name) {
    const json all = json_of({"ps", "--json"});
    for (const json& one : all["slices"]) {
      if (one["name"] == name) return one;
    }
    ADD_FAILURE() << "no slice " << name;
    return {};
  }
  uint64_t used(const std::string& name) { return slice(name)["gpus"][0]["used_bytes"]; }
};

TEST_F(Listing, PsShowsSlicesAndProcesses) {
  const auto program = start_gpu_program({"--gpu-mem", "4G", "--name", "alice"});
  ASSERT_EQ(ask(*program, "alloc " + std::to_string(kGiB)), "ok");
  ASSERT_NE(ask(*program, "alloc " + std::to_string(8 * kGiB)), "ok");
  const json one = slice("alice");
  EXPECT_EQ(one["software"], true);
  EXPECT_EQ(one["fail"], "closed");
  EXPECT_EQ(one["launcher_pid"], program->pid());
  EXPECT_EQ(one["path"], region() + "/alice.slice");
  const json gpu = one["gpus"][0];
  EXPECT_EQ(gpu["index"], 0);
  EXPECT_EQ(gpu["limit_bytes"], 4 * kGiB);
  EXPECT_EQ(gpu["physical_bytes"], 16 * kGiB);
  EXPECT_GE(gpu["refused"], 1);
  EXPECT_EQ(gpu["by_kind"]["linear"], kGiB);
  EXPECT_GT(gpu["by_kind"]["driver"], 0) << "the context";
  EXPECT_EQ(gpu["used_bytes"], kGiB + gpu["by_kind"]["driver"].get<uint64_t>());
  EXPECT_GE(gpu["peak_bytes"].get<uint64_t>(), gpu["used_bytes"].get<uint64_t>());
  ASSERT_EQ(one["processes"].size(), 1u);
  const json process = one["processes"][0];
  EXPECT_EQ(std::to_string(process["pid"].get<int>()), ask(*program, "pid"));
  EXPECT_EQ(process["command"], GPU_PROGRAM);
  EXPECT_EQ(process["gpus"][0]["by_kind"]["linear"], kGiB);

  const Outcome text = allot({"ps"});
  for (const char* word : {"alice", "(software)", "4 GiB", "linear 1 GiB", GPU_PROGRAM}) {
    EXPECT_NE(text.out.find(word), std::string::npos) << text.out;
  }
}

TEST_F(Listing, TwoSlicesAtOnceAreHeldEachToItsOwn) {
  const auto alice = start_gpu_program({"--gpu-mem", "2G", "--name", "alice"});
  const auto bob = start_gpu_program({"--gpu-mem", "3G", "--name", "bob"});
  EXPECT_EQ(ask(*alice, "alloc " + std::to_string(kGiB)), "ok");
  EXPECT_EQ(ask(*alice, "alloc " + std::to_string(kGiB)), "2");
  EXPECT_EQ(ask(*bob, "alloc " + std::to_string(2 * kGiB)), "ok");
  EXPECT_EQ(ask(*bob, "alloc " + std::to_string(kGiB)), "2");
  const json gpu = json_of({"gpus", "--sim", "--json"})["gpus"][0];
  EXPECT_EQ(gpu["slices"], 2);
  EXPECT_EQ(gpu["promised_bytes"], 5 * kGiB);
  EXPECT_EQ(gpu["slices_used_bytes"].get<uint64_t>(), used("alice") + used("bob"));
  EXPECT_LE(used("alice"), 2 * kGiB);
  EXPECT_LE(used("bob"), 3 * kGiB);
  kill(std::stoi(ask(*bob, "pid")), SIGKILL);
  EXPECT_EQ(bob->wait(), 128 + SIGKILL);
  EXPECT_EQ(json_of({"ps", "--json"})["slices"].size(), 1u);
  EXPECT_GE(used("alice"), kGiB);
}

TEST_F(Listing, GpusHasTheDocumentedFields) {
  environment["ALLOT_SIM_GPUS"] = "2x24G";
  const auto program = start_gpu_program({"--gpu", "1", "--name", "a"});
  const json all = json_of({"gpus", "--sim", "--json"});
  EXPECT_EQ(all["software"], true);
  EXPECT_EQ(all["source"], "NVML");
  EXPECT_TRUE(all["driver_version"].is_string());
  EXPECT_TRUE(all["cuda_version"].is_number_integer());
  ASSERT_EQ(all["gpus"].size(), 2u);
  const json gpu = all["gpus"][1];
  EXPECT_EQ(gpu["index"], 1);
  EXPECT_EQ(gpu["total_bytes"], 24 * kGiB);
  EXPECT_TRUE(gpu["uuid"].get<std::string>().starts_with("GPU-"));
  EXPECT_NE(gpu["uuid"], all["gpus"][0]["uuid"]);
  EXPECT_EQ(gpu["software"], true);
  EXPECT_EQ(gpu["mig_enabled"], false);
  EXPECT_LT(gpu["free_bytes"], 24 * kGiB) << "a context is there";
  EXPECT_EQ(gpu["slices"], 1);
  EXPECT_EQ(gpu["slices_without_limit"], 1);
  EXPECT_EQ(gpu["promised_bytes"], 0);
  EXPECT_EQ(all["gpus"][0]["slices"], 0);
  EXPECT_EQ(all["gpus"][0]["free_bytes"], 24 * kGiB);

  EXPECT_EQ(all["inside_slice"], nullptr);

  const Outcome text = allot({"gpus", "--sim"});
  EXPECT_NE(text.out.find("software GPU"), std::string::npos) << text.out;
}

TEST_F(Listing, InsideASliceGpusShowsTheSlice) {
  const json all = json_of({"run", "--sim", "--gpu-mem", "2G", "--name", "a", "--", ALLOT_BINARY,
                            "gpus", "--sim", "--json"});
  EXPECT_EQ(all["inside_slice"], region() + "/a.slice");
  EXPECT_EQ(all["gpus"][0]["total_bytes"], 2 * kGiB);
}

TEST_F(Listing, SetTakesEffectAtOnce) {
  const auto program = start_gpu_program({"--gpu-mem", "2G", "--name", "a"});
  const std::string gib = std::to_string(kGiB);
  ASSERT_EQ(ask(*program, "alloc " + gib), "ok");
  ASSERT_EQ(ask(*program, "alloc " + gib), "2");
  EXPECT_EQ(allot({"set", "a", "--gpu-mem", "4G"}).status, 0);
  EXPECT_TRUE(ask(*program, "info").ends_with(" " + std::to_string(4 * kGiB)));
  EXPECT_EQ(ask(*program, "alloc " + gib), "ok");

  const Outcome below = allot({"set", "a", "--gpu", "0", "--gpu-mem", "1G"});
  EXPECT_EQ(below.status, 0);
  EXPECT_NE(below.out.find("nothing is freed, but allocations fail"), std::string::npos)
      << below.out;
  EXPECT_GE(used("a"), 2 * kGiB) << "nothing is lost";
  EXPECT_EQ(ask(*program, "alloc 4096"), "2");
  EXPECT_TRUE(ask(*program, "info").starts_with("0 "));
  EXPECT_EQ(ask(*program, "free"), "ok");
  EXPECT_EQ(ask(*program, "free"), "ok");
  EXPECT_EQ(ask(*program, "alloc 4096"), "ok");

  EXPECT_EQ(allot({"set", "a", "--gpu-mem", "none"}).status, 0);
  EXPECT_EQ(slice("a")["gpus"][0]["limit_bytes"], nullptr);
  EXPECT_EQ(ask(*program, "alloc " + std::to_string(8 * kGiB)), "ok");
}

TEST_F(Listing, SetChangesGpuTime) {
  environment["ALLOT_SIM_GPUS"] = "2x16G";
  const auto program = start_gpu_program({"--name", "a"});
  const Outcome got = allot({"set", "a", "--gpu-share", "30", "--gpu-max", "80%"});
  EXPECT_EQ(got.status, 0) << got.err;
  EXPECT_NE(got.out.find("share none -> 30%, ceiling none -> 80%"), std::string::npos) << got.out;
  EXPECT_EQ(allot({"set", "a", "--gpu", "1", "--gpu-share", "12.5"}).status, 0);
  const Outcome words = allot({"set", "a", "--priority", "high", "--level", "observe"});
  EXPECT_EQ(words.out, "priority normal -> high\nlevel auto -> observe\n");
  json one = slice("a");
  EXPECT_EQ(one["gpus"][0]["share_percent"], 30.0);
  EXPECT_EQ(one["gpus"][1]["share_percent"], 12.5);
  EXPECT_EQ(one["gpus"][1]["max_percent"], 80.0);
  EXPECT_EQ(one["priority"], "high");
  EXPECT_EQ(one["level"], "observe");
  EXPECT_EQ(allot({"set", "a", "--gpu-share", "none", "--gpu-max", "none"}).status, 0);
  one = slice("a");
  EXPECT_EQ(one["gpus"][0]["share_percent"], nullptr);
  EXPECT_EQ(one["gpus"][0]["max_percent"], nullptr);
  const Outcome text = allot({"ps"});
  EXPECT_NE(text.out.find("high"), std::string::npos) << text.out;
}

TEST_F(Listing, PsShowsGpuTime) {
  const auto program = start_gpu_program({"--gpu-share", "30", "--name", "a"});
  const json one = slice("a");
  const json gpu = one["gpus"][0];
  for (const char* field : {"time_used_ns", "time_throttled_ns"}) {
    EXPECT_TRUE(gpu[field].is_number_unsigned()) << field;
  }
  EXPECT_TRUE(gpu.contains("window_percent"));
  EXPECT_EQ(gpu["state"], "idle");
  const json process = one["processes"][0];
  EXPECT_TRUE(process["reason"].is_string());
  ASSERT_TRUE(process["gpus"][0].contains("time"));
  const Outcome text = allot({"ps"});
  for (const char* word : {"SHARE", "30%", "PRIORITY", "idle", "GPU time:"}) {
    EXPECT_NE(text.out.find(word), std::string::npos) << text.out;
  }
}

TEST_F(Listing, AFrozenSliceIsShownAndFreezingItAgainIsFine) {
  // Nothing of it is on a GPU, so there is nothing to wait for.
  const auto program =
      start({"run", "--sim", "--name", "a", "--", "sh", "-c", "echo ready; read x"});
  ASSERT_EQ(program->line(), "ready");
  for (int round = 0; round < 2; ++round) {
    const Outcome got = allot({"freeze", "a"});
    EXPECT_EQ(got.status, 0) << got.err;
    EXPECT_EQ(got.out, std::string("a: ") + (round == 0 ? "frozen" : "was frozen already") +
                           " (none of its processes uses a GPU)\n");
    EXPECT_EQ(slice("a")["frozen"], true);
    EXPECT_EQ(slice("a")["gpus"][0]["state"], "frozen");
    EXPECT_NE(allot({"ps"}).out.find("frozen"), std::string::npos);
  }
  for (int round = 0; round < 2; ++round) {
    const Outcome thawed = allot({"thaw", "a"});
    EXPECT_EQ(thawed.status, 0);
    EXPECT_EQ(thawed.out, std::string("a: ") + (round == 0 ? "thawed" : "was not frozen") +
                              " (none of its processes uses a GPU)\n");
    EXPECT_EQ(slice("a")["frozen"], false);
  }
}

TEST_F(Listing, FreezingStopsWorkAndThawingLetsItGoOn) {
  const auto load = start({"run", "--sim", "--name", "a", "--level", "channel", "--", ALLOT_BINARY,
                           "bench", "load", "--seconds", "60"});
  const auto state = [this] { return slice("a")["gpus"][0]["state"]; };
  const auto used_ns = [this] { return slice("a")["gpus"][0]["time_used_ns"].get<uint64_t>(); };
  ASSERT_TRUE(wait_until([this] { return !json_of({"ps", "--json"})["slices"].empty(); }));
  ASSERT_TRUE(wait_until([&] { return state() == "active" && used_ns() > 0; }));

  const Outcome frozen = allot({"freeze", "a"});
  EXPECT_EQ(frozen.out, "a: frozen (1 process)\n") << frozen.err;
  EXPECT_EQ(state(), "frozen");
  EXPECT_EQ(slice("a")["processes"][0]["gpus"][0]["time"]["state"], "frozen");
  // What had run before may be counted a little later; then it stands still.
  uint64_t before = 0;
  EXPECT_TRUE(wait_until([&] {
    before = used_ns();
    poll(nullptr, 0, 100);  // not a wait for anything: the span in which nothing may run
    return used_ns() == before;
  }));

  EXPECT_EQ(allot({"thaw", "a"}).out, "a: thawed (1 process)\n");
  EXPECT_TRUE(wait_until([&] { return used_ns() > before; }));
  EXPECT_EQ(state(), "active");

  // A frozen program that is killed dies at once.
  EXPECT_EQ(allot({"freeze", "a"}).status, 0);
  const pid_t pid = slice("a")["processes"][0]["pid"];
  kill(pid, SIGKILL);
  EXPECT_EQ(load->wait(), 128 + SIGKILL);
}

TEST_F(Listing, WorkThatIsOnlyObservedCannotBeFrozen) {
  const auto load = start({"run", "--sim", "--name", "a", "--level", "observe", "--", ALLOT_BINARY,
                           "bench", "load", "--seconds", "60"});
  ASSERT_TRUE(wait_until([this] {
    const json all = json_of({"ps", "--json"});
    return !all["slices"].empty() && all["slices"][0]["gpus"][0]["state"] == "active";
  }));
  const Outcome got = allot({"freeze", "a"});
  EXPECT_EQ(got.status, 125);
  EXPECT_NE(got.err.find("only observed (--level observe)"), std::string::npos) << got.err;
  EXPECT_EQ(slice("a")["frozen"], false) << "nothing was changed";
}

TEST_F(Listing, DoctorSaysHowGpuTimeIsHeld) {
  const auto time_of = [this] {
    std::string text;
    const json report = json_of({"doctor", "--sim", "--json"});
    for (const json& finding : report["findings"]) {
      if (finding["check"] == "time") text += finding["found"].get<std::string>() + "\n";
    }
    return text;
  };
  EXPECT_NE(time_of().find("level channel"), std::string::npos) << time_of();
  EXPECT_NE(time_of().find("published versions of driver branch 580 "), std::string::npos);
  environment["CUDA_MPS_PIPE_DIRECTORY"] = folder();
  EXPECT_NE(time_of().find("level launch, because CUDA_MPS_PIPE_DIRECTORY"), std::string::npos)
      << time_of();
}

TEST_F(Listing, WithoutSlicesPsIsEmpty) {
  EXPECT_EQ(allot({"ps"}).out, "no slices\n");
  const json empty = json_of({"ps", "--json"});
  EXPECT_EQ(empty["folder"], region());
  EXPECT_EQ(empty["slices"], json::array());
  environment["ALLOT_DIR"] = folder() + "/absent";
  EXPECT_EQ(json_of({"ps", "--json"})["folder"], nullptr);
  struct stat about = {};
  EXPECT_NE(stat((folder() + "/absent").c_str(), &about), 0) << "listing makes no folder";
}

TEST_F(Listing, DoctorFindsNothingWrongWithTheSoftwareGpu) {
  const Outcome got = allot({"doctor", "--sim", "--json"});
  EXPECT_EQ(got.status, 0) << got.out;
  const json report = json::parse(got.out, nullptr, false);
  EXPECT_EQ(report["problems"], 0);
  std::vector<std::string> checks;
  for (const json& finding : report["findings"]) {
    checks.push_back(finding["check"]);
    EXPECT_TRUE(finding["verdict"] == "ok" || finding["verdict"] == "note") << finding;
    EXPECT_FALSE(finding["found"].get<std::string>().empty());
  }
  for (const char* check : {"driver", "nvml", "gpus", "entries", "libraries", "region", "mps",
                            "preload", "memory", "time"}) {
    EXPECT_NE(std::find(checks.begin(), checks.end(), check), checks.end()) << check;
  }
}

TEST_F(Listing, DoctorNamesProblems) {
  environment["ALLOT_REAL_CUDA"] = "/nonexistent/libcuda.so.1";
  environment["ALLOT_REAL_NVML"] = "/nonexistent/libnvidia-ml.so.1";
  environment["CUDA_DEVICE_MEMORY_LIMIT_0"] = "4g";
  const Outcome got = allot({"doctor", "no-such-program-anywhere"});
  EXPECT_EQ(got.status, 1);
  for (const char* text : {"problem  driver", "libcuda.so.1 was not found",
                           "no-such-program-anywhere", "CUDA_DEVICE_MEMORY_LIMIT_0=4g", "HAMi"}) {
    EXPECT_NE(got.out.find(text), std::string::npos) << text << "\n" << got.out;
  }
}

TEST_F(Listing, TheDemoHoldsBothPrograms) {
  const Outcome got = allot({"demo"});
  EXPECT_EQ(got.status, 0) << got.out << got.err;
  EXPECT_NE(got.out.find("software GPU"), std::string::npos);
  EXPECT_NE(got.out.find("CUDA_ERROR_OUT_OF_MEMORY"), std::string::npos);
  EXPECT_NE(got.out.find("Both were held"), std::string::npos);
  std::istringstream lines(got.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
}

TEST_F(Listing, WithoutADriverGpusNamesTheSlicesOnTheSoftwareGpu) {
  environment["ALLOT_REAL_CUDA"] = "/nonexistent/libcuda.so.1";
  environment["ALLOT_REAL_NVML"] = "/nonexistent/libnvidia-ml.so.1";
  EXPECT_EQ(allot({"gpus"}).err.find("software GPU: "), std::string::npos);
  const auto program =
      start({"run", "--sim", "--name", "a", "--", "sh", "-c", "echo ready; read x"});
  ASSERT_EQ(program->line(), "ready");
  const Outcome got = allot({"gpus"});
  EXPECT_EQ(got.status, 125);
  EXPECT_NE(got.err.find("a slice runs on the software GPU: 'allot gpus --sim'"), std::string::npos)
      << got.err;
}

}  // namespace
}  // namespace allot::e2e
