// ps as people use it: by name, by user, sorted, in a pipe of 80 columns, with slices of CPUs
// alone.
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using nlohmann::json;
using Words = std::vector<std::string>;

class Ps : public Machine {
 protected:
  Words names(Words flags) {
    flags.insert(flags.begin(), {"ps", "--json"});
    Words out;
    const json all = json_of(flags);
    for (const json& slice : all["slices"]) out.push_back(slice["name"]);
    return out;
  }
  std::unique_ptr<Command> start_idle(const Words& flags) {
    Words words = {"run"};
    words.insert(words.end(), flags.begin(), flags.end());
    words.insert(words.end(), {"--", "sh", "-c", "echo ready; read x"});
    auto command = start(words);
    EXPECT_EQ(command->line(), "ready") << command->err();
    return command;
  }
};

TEST_F(Ps, FitsEightyColumnsInAPipeAndTheTerminalElsewhere) {
  const auto one = start_gpu_program({"--name", std::string(63, 'n'), "--gpu-mem", "4G",
                                      "--gpu-share", "12.5", "--gpu-max", "50"});
  const auto two = start_gpu_program({"--name", "b"});
  ASSERT_EQ(ask(*one, "alloc 1048576"), "ok");
  for (const char* columns : {"", "60", "132"}) {
    environment["COLUMNS"] = columns;
    const size_t width = *columns == '\0' ? 80 : std::stoul(columns);
    for (const char* command : {"ps", "gpus"}) {
      const Outcome got = allot(Words{command, *command == 'g' ? "--sim" : "b"});
      const std::string text = got.out + (*command == 'g' ? "" : allot({"ps"}).out);
      for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
           begin = end + 1)
        EXPECT_LE(end - begin, width) << text;
    }
  }
  environment["COLUMNS"] = "";
  const std::string wide = allot({"ps", "--wide"}).out;
  for (const std::string& word :
       {std::string(63, 'n'), std::string("REFUSED"), std::string("PRIORITY")})
    EXPECT_NE(wide.find(word), std::string::npos) << wide;
  EXPECT_EQ(allot({"ps"}).out.find('\x1b'), std::string::npos) << "no colours in a pipe";
}

TEST_F(Ps, NamesUsersAndOrder) {
  const auto ten = start_idle({"--sim", "--name", "job10", "--gpu-mem", "1G"});
  const auto two = start_idle({"--sim", "--name", "job2", "--gpu-mem", "3G"});
  const auto other = start_idle({"--sim", "--name", "a", "--gpu-mem", "2G"});
  EXPECT_EQ(names({}), (Words{"a", "job2", "job10"}));
  EXPECT_EQ(names({"--sort", "limit"}), (Words{"job2", "a", "job10"}));
  EXPECT_EQ(names({"--sort=created"}), (Words{"a", "job2", "job10"}));
  EXPECT_EQ(names({"job*"}), (Words{"job2", "job10"}));
  EXPECT_EQ(names({"a", "job10"}), (Words{"a", "job10"}));
  EXPECT_EQ(names({"--user", std::to_string(geteuid())}).size(), 3u);
  EXPECT_EQ(names({"--user", "65534"}).size(), 0u);
  EXPECT_EQ(allot({"ps", "--user", "no-such-user"}).status, 2);
  const Outcome sorted = allot({"ps", "--sort", "usde"});
  EXPECT_EQ(sorted.status, 2);
  EXPECT_NE(sorted.err.find("'used'"), std::string::npos) << sorted.err;
  const Outcome missing = allot({"ps", "job3"});
  EXPECT_EQ(missing.status, 125);
  EXPECT_NE(missing.err.find("no slice 'job3'; did you mean 'job2'?"), std::string::npos)
      << missing.err;
}

TEST_F(Ps, TheSumsOfEachGpuAreThere) {
  environment["ALLOT_SIM_GPUS"] = "2x16G";
  const auto one = start_idle({"--sim", "--name", "a", "--gpu-mem", "1G", "--gpu-share", "30"});
  const auto two =
      start_idle({"--sim", "--name", "b", "--gpu", "1", "--gpu-mem", "2G", "--gpu-share", "20"});
  const std::string text = allot({"ps"}).out;
  EXPECT_NE(
      text.find("GPU 0 (software): 0 B used, 1 GiB promised of 16 GiB, shares 30%, 1 slice\n"),
      std::string::npos)
      << text;
  EXPECT_NE(
      text.find("GPU 1 (software): 0 B used, 3 GiB promised of 16 GiB, shares 50%, 2 slices\n"),
      std::string::npos)
      << text;
}

TEST_F(Ps, SlicesOfCpusAloneAreThere) {
  const auto program = start_idle({"--cpus", "0,", "--name", "maker"});
  const json all = json_of({"ps", "--json"})["slices"];
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0]["name"], "maker");
  EXPECT_EQ(all[0]["cpus"]["cpus"], "0");
  EXPECT_EQ(all[0]["cpus"]["exclusive"], false);
  EXPECT_EQ(all[0]["uid"], geteuid());
  EXPECT_EQ(all[0]["gpus"], json::array());
  EXPECT_EQ(all[0]["processes"][0]["pid"], all[0]["cpus"]["pid"]);
  EXPECT_EQ(names({"maker"}), Words{"maker"});
  const std::string text = allot({"ps"}).out;
  for (const char* word : {"CPUS", "maker", "sh -c"})
    EXPECT_NE(text.find(word), std::string::npos) << text;
}

TEST_F(Ps, AVariableThatNamesNoFolderYetIsSaid) {
  environment["ALLOT_DIR"] = folder() + "/absent";
  const Outcome got = allot({"ps"});
  EXPECT_EQ(got.status, 0);
  EXPECT_EQ(got.out, "no slices\n");
  EXPECT_NE(got.err.find("/absent: there is no such folder"), std::string::npos) << got.err;
}

class SoftwareGpu : public Machine {};

TEST_F(SoftwareGpu, ListingsChangeNothingOfIt) {
  const auto total = [&](const std::string& flag) {
    return json_of({"gpus", flag, "--json"})["gpus"][0]["total_bytes"].get<uint64_t>();
  };
  environment["ALLOT_SIM_GPUS"] = "";
  EXPECT_EQ(total("--sim=8G"), 8 * kGiB);
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder() + "/sim"))
    files.insert(entry.path());
  EXPECT_TRUE(files.empty()) << "nothing is made";
  {
    const auto program =
        start({"run", "--sim=60G", "--name", "a", "--", "sh", "-c", "echo ready; read x"});
    ASSERT_EQ(program->line(), "ready");
    const std::string uuid = json_of({"gpus", "--sim", "--json"})["gpus"][0]["uuid"];
    EXPECT_EQ(total("--sim=8G"), 8 * kGiB);
    allot({"doctor", "--sim=8G"});
    EXPECT_EQ(total("--sim"), 60 * kGiB) << "as it was";
    EXPECT_EQ(json_of({"gpus", "--sim=8G", "--json"})["gpus"][0]["uuid"], uuid);
  }
  EXPECT_EQ(total("--sim"), 60 * kGiB);
}

TEST_F(SoftwareGpu, OtherSizesAreRefusedWhileAnIdleSliceIsOnIt) {
  environment["ALLOT_SIM_GPUS"] = "";
  const auto machine = [&] { return json_of({"gpus", "--sim", "--json"})["gpus"].size(); };
  const auto idle =
      start({"run", "--sim=2x16G", "--name", "idle", "--", "sh", "-c", "echo ready; read x"});
  ASSERT_EQ(idle->line(), "ready");
  for (const char* other : {"--sim=4x24G", "--sim=16G", "--sim=16G,8G"}) {
    for (const char* fail : {"closed", "open"}) {
      const Outcome got = allot({"run", other, "--fail", fail, "--", "true"});
      EXPECT_EQ(got.status, 125) << other;
      EXPECT_EQ(std::count(got.err.begin(), got.err.end(), '\n'), 1) << got.err;
      for (const char* word :
           {"as 2x16G by slice 'idle'", other + 6, "allot stop idle", "ALLOT_SIM_DIR"})
        EXPECT_NE(got.err.find(word), std::string::npos) << got.err;
    }
  }
  EXPECT_EQ(machine(), 2u) << "as it was";
  EXPECT_EQ(allot({"run", "--sim=16G,16G", "--", "true"}).status, 0) << "the same sizes";
  EXPECT_EQ(allot({"run", "--sim", "--", "true"}).status, 0) << "no sizes";
  environment["ALLOT_SIM_DIR"] = folder() + "/other";
  EXPECT_EQ(allot({"run", "--sim=4x24G", "--", "true"}).status, 0) << "another machine";
  environment["ALLOT_SIM_DIR"] = folder() + "/sim";
  EXPECT_EQ(allot({"stop", "idle"}).status, 0);
  EXPECT_EQ(allot({"run", "--sim=4x24G", "--", "true"}).status, 0) << "nobody is on it";
  EXPECT_EQ(machine(), 4u);
}

TEST_F(SoftwareGpu, WhyItCannotBeUsedIsSaidInWords) {
  const auto why = [&](const Words& words) {
    const Outcome got = allot(words);
    EXPECT_EQ(got.status, 125) << got.err;
    EXPECT_EQ(std::count(got.err.begin(), got.err.end(), '\n'), 1) << got.err;
    for (const char* wrong : {"NVML", "NVIDIA", "error 999", "CUDA"})
      EXPECT_EQ(got.err.find(wrong), std::string::npos) << got.err;
    return got.err;
  };
  const auto program = start_gpu_program({"--name", "a"});
  const std::string used = why({"run", "--sim=2x8G", "--", "true"});
  EXPECT_NE(used.find("the software GPU: it is in use as 1x16G by slice 'a', and 2x8G was asked"),
            std::string::npos)
      << used;
  EXPECT_EQ(allot({"run", "--sim=16384M", "--", "true"}).status, 0) << "the same sizes";
  environment["ALLOT_SIM_DIR"] = "/proc/nowhere";
  EXPECT_NE(why({"run", "--sim", "--", "true"}).find("folder /proc/nowhere cannot be made"),
            std::string::npos);
  std::ofstream(folder() + "/file") << "x";
  environment["ALLOT_SIM_DIR"] = folder() + "/file";
  EXPECT_NE(why({"run", "--sim", "--", "true"}).find("Not a directory"), std::string::npos);
}

// The fields of --json and those of docs/commands.md are the same.
class JsonFields : public Machine {
 protected:
  static void collect(const json& value, std::set<std::string>* keys) {
    if (value.is_object()) {
      for (const auto& [key, item] : value.items()) {
        keys->insert(key);
        if (key != "ps") collect(item, keys);  // that is a process of `allot ps --json`
      }
    } else if (value.is_array()) {
      for (const json& item : value) collect(item, keys);
    }
  }
  // The words in quotation marks of a section of the page.
  static std::set<std::string> documented(const std::string& section) {
    std::ifstream file(ALLOT_SOURCE "/docs/commands.md");
    const std::string page((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    const size_t begin = page.find("\n## " + section);
    EXPECT_NE(begin, std::string::npos) << section;
    const std::string text = page.substr(begin, page.find("\n## ", begin + 1) - begin);
    std::set<std::string> words;
    const std::regex quoted("\"([a-z_0-9]+)\"");
    for (auto it = std::sregex_iterator(text.begin(), text.end(), quoted);
         it != std::sregex_iterator(); ++it)
      words.insert((*it)[1]);
    return words;
  }
  // bench/README.md has every field of the output, in `backquotes` or in "quotation marks".
  static void in_bench_page(const json& output) {
    std::ifstream file(ALLOT_SOURCE "/bench/README.md");
    const std::string page((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    std::set<std::string> keys;
    collect(output, &keys);
    for (const std::string& key : keys) {
      if (key[0] == '{') continue;  // a load, in `calibrations`
      const bool there = page.find("`" + key + "`") != std::string::npos ||
                         page.find("\"" + key + "\"") != std::string::npos;
      EXPECT_TRUE(there) << key << " is not in bench/README.md";
    }
  }
  static void compare(const std::string& section, const json& output,
                      const std::set<std::string>& values) {
    SCOPED_TRACE(section);
    std::set<std::string> keys;
    collect(output, &keys);
    const std::set<std::string> words = documented(section);
    for (const std::string& key : keys)
      EXPECT_EQ(words.count(key), 1u) << key << " is not in the docs";
    for (const std::string& word : words) {
      if (values.count(word) > 0) continue;
      EXPECT_EQ(keys.count(word), 1u) << word << " is not in the output";
    }
  }
};

TEST_F(JsonFields, TheDocsAndTheOutputAgree) {
  const auto program = start({"run", "--sim", "--name", "a", "--cpus", "0,", "--", ALLOT_BINARY,
                              "bench", "load", "--seconds", "60"});
  ASSERT_TRUE(wait_until([&] {
    const json all = json_of({"ps", "--json"})["slices"];
    return !all.empty() && !all[0]["processes"].empty() &&
           !all[0]["processes"][0]["gpus"][0]["time"].is_null();
  }));
  std::ofstream(region() + "/damaged.slice") << "x";
  const std::set<std::string> values = {
      "closed",   "open",     "high",     "normal",   "low",         "auto",    "channel",
      "launch",   "observe",  "driver",   "fast",     "active",      "idle",    "throttled",
      "freezing", "frozen",   "evicting", "evicted",  "none",        "asked",   "mps",
      "control",  "crowded",  "tables",   "channels", "descriptors", "streams", "contexts",
      "markers",  "accounts", "costs"};
  json ps = json_of({"ps", "--json"});
  compare("allot ps", ps, [&] {
    std::set<std::string> all = values;
    for (const char* key : {"driver", "frozen", "evicted"}) all.erase(key);  // fields as well
    return all;
  }());
  compare("allot gpus", json_of({"gpus", "--sim", "--json"}), {});
  json doctor = json::parse(allot({"doctor", "--sim", "--json"}).out);
  compare("allot doctor", doctor, {"ok", "note", "problem"});
  compare("allot version", json_of({"version", "--json"}),
          {"unknown", "release", "relwithdebinfo", "x86_64"});
}

TEST_F(JsonFields, OfEvictAgree) {
  const auto program = start_gpu_program({"--name", "a"});
  ASSERT_EQ(ask(*program, "alloc 1048576"), "ok");
  const json both = {json_of({"evict", "a", "--json"}), json_of({"restore", "a", "--json"})};
  compare("allot evict", both, {"evicted", "running", "driver", "fast"});
}

TEST_F(JsonFields, OfBenchAgree) {
  json all = json::array();
  for (const Words& words :
       {Words{"load", "--seconds", "1.2"}, Words{"latency", "--seconds", "0.2"}, Words{"alloc"}}) {
    Words line = {"run", "--sim", "--gpu-max",  "50",   "--gpu-mem",
                  "1G",  "--",    ALLOT_BINARY, "bench"};
    line.insert(line.end(), words.begin(), words.end());
    line.push_back("--json");
    all.push_back(json_of(line));
  }
  compare("allot bench", all, {});
}

TEST_F(JsonFields, OfBenchShareAndHooksAreInTheirPage) {
  in_bench_page(
      json_of({"bench", "share", "--sim", "--native", "--seconds", "1.2", "--slice",
               "full:30,max=50", "--slice", "request:20", "--phase", "max=60/share=25", "--json"}));
  in_bench_page(json_of({"bench", "share", "--sim", "--seconds", "1.2", "--slice", "bursty:50",
                         "--slice", "step:40", "--json"}));
  in_bench_page(json_of(
      {"run", "--sim", "--", ALLOT_BINARY, "bench", "hooks", "--seconds", "0.1", "--json"}));
}

// A process of the test that does nothing, to give CPUs to.
class Waiting {
 public:
  Waiting() : pid_(fork()) {
    while (pid_ == 0) pause();
  }
  ~Waiting() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST_F(JsonFields, OfCpusAgree) {
  cpu_set_t all = {};
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  const std::string cpu = std::to_string(first) + ",";
  const Waiting waiting;
  const std::string pid = std::to_string(waiting.pid());
  json got = json::array();
  got.push_back(
      json_of({"cpus", "attach", pid, "--cpus", cpu, "--no-cpuset", "--name", "w", "--json"}));
  got.push_back(json_of({"cpus", "show", "--json"}));
  // These come only with GPUs on a bus, with a cpuset, and with a second CPU to stray to.
  std::set<std::string> may_lack = {"gpu",  "bus",   "op",         "path",
                                    "text", "errno", "errno_name", "why"};
  if (CPU_COUNT(&all) > 1) {
    ASSERT_EQ(sched_setaffinity(waiting.pid(), sizeof(all), &all), 0);
    const std::string lines = allot({"cpus", "watch", "--once", "--json"}).out;
    ASSERT_FALSE(lines.empty()) << "it strayed";
    got.push_back(json::parse(lines.substr(0, lines.find('\n'))));
  } else {
    may_lack.insert({"s", "slice", "kind", "what", "done", "error"});
  }
  got.push_back(json_of({"cpus", "plan", "--cpus", cpu, "--json"}));
  got.push_back(json_of({"cpus", "explain", "--json", "affinity", pid, std::to_string(first)}));
  got.push_back(json_of({"cpus", "detach", "w", "--json"}));
  compare("allot cpus", got, may_lack);
}

}  // namespace
}  // namespace allot::e2e
