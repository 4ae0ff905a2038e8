// The checks of programs and the shell: whether LD_PRELOAD reaches them, and which variables are
// set.
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "abi/env.h"
#include "cli/doctor/doctor_checks.h"
#include "cli/failure.h"
#include "cli/launch/program_check.h"
#include "cli/output.h"

extern char** environ;

namespace allot::cli {
namespace {

void add_preload(Findings* findings, Verdict verdict, std::string found, std::string advice = "") {
  findings->push_back({verdict, "preload", std::move(found), std::move(advice)});
}

void check_program(const std::string& program, Findings* findings) {
  std::string file;
  try {
    file = resolve_program(program, std::getenv("PATH"));
  } catch (const Failure& failure) {
    add_preload(findings, Verdict::kProblem, failure.line(),
                "write the program as you would start it");
    return;
  }
  switch (preload_effect(file)) {
    case Preload::kWorks:
      add_preload(findings, Verdict::kGood, file + ": obeys LD_PRELOAD");
      break;
    case Preload::kStatic:
      add_preload(
          findings, Verdict::kNote,
          file +
              ": is linked statically: ignores LD_PRELOAD itself, but the programs it starts obey "
              "it");
      break;
    case Preload::kSetId:
      add_preload(findings, Verdict::kProblem,
                  file + ": gains privileges when it starts, so the loader drops LD_PRELOAD",
                  "run 'allot run' behind it: sudo -u USER allot run ... -- PROGRAM");
      break;
    case Preload::kOtherLoader:
      add_preload(findings, Verdict::kProblem,
                  file + ": uses the musl C library, which cannot load allot's libraries",
                  "use a glibc build of it");
      break;
    case Preload::kOtherMachine:
      add_preload(findings, Verdict::kProblem,
                  file + ": is built for another processor or word size",
                  "use a 64-bit build of it");
      break;
  }
}

struct Variable {
  const char* name;
  const char* meaning;
  bool numbered;  // also NAME_0, NAME_1 ...
};

constexpr std::array kVariables = {
    Variable{ALLOT_ENV_GPU_MEM, "memory limit without 'allot run'", true},
    Variable{ALLOT_ENV_GPU_SHARE, "guaranteed share of GPU time without 'allot run'", true},
    Variable{ALLOT_ENV_GPU_MAX, "ceiling of GPU time without 'allot run'", true},
    Variable{ALLOT_ENV_OVERCOMMIT, "shares may sum to more than 100 % without 'allot run'", false},
    Variable{ALLOT_ENV_PRIORITY, "priority without 'allot run'", false},
    Variable{ALLOT_ENV_LEVEL, "how GPU time is held without 'allot run'", false},
    Variable{ALLOT_ENV_NAME, "name of the slice without 'allot run'", false},
    Variable{ALLOT_ENV_DIR, "the region's folder", false},
    Variable{ALLOT_ENV_FAIL, "open or closed where a limit cannot be enforced", false},
    Variable{ALLOT_ENV_REAL_CUDA, "used as the driver's libcuda.so.1", false},
    Variable{ALLOT_ENV_REAL_NVML, "used as the driver's libnvidia-ml.so.1", false},
    Variable{ALLOT_ENV_LOG, "where the libraries write their messages", false},
    Variable{ALLOT_ALIAS_GPU_MEM, "HAMi's name: read as " ALLOT_ENV_GPU_MEM " where that is absent",
             true},
    Variable{ALLOT_ALIAS_GPU_SHARE,
             "HAMi's name: share and ceiling of GPU time at once, where ours are absent", true},
    Variable{ALLOT_ALIAS_PRIORITY, "HAMi's name: 0 high, 1 low", false},
    Variable{ALLOT_ALIAS_POLICY,
             "HAMi's name: 'disable' removes the limit of " ALLOT_ALIAS_GPU_SHARE " away", false},
    Variable{ALLOT_ALIAS_REGION, "HAMi's name: a path whose hash names the slice", false},
};

bool is_variable(std::string_view name, const Variable& variable) {
  if (!name.starts_with(variable.name)) return false;
  name.remove_prefix(std::string_view(variable.name).size());
  if (name.empty()) return true;
  return variable.numbered && name.size() > 1 && name[0] == '_' &&
         name.find_first_not_of("0123456789", 1) == std::string_view::npos;
}

}  // namespace

void check_preload(const std::string& program, Findings* findings) {
  if (!program.empty()) check_program(program, findings);
  std::ifstream file("/etc/ld.so.preload");
  std::string line;
  while (std::getline(file, line)) {
    if (line.find("libvgpu") != std::string::npos) {
      add_preload(findings, Verdict::kProblem,
                  "/etc/ld.so.preload loads another GPU sharing library: " + harmless(line),
                  "remove that line: two of them in one process intercept each other");
    }
  }
  add_preload(
      findings, Verdict::kNote,
      "not held: set-user-ID programs (sudo, su), musl programs, and programs that talk to the "
      "kernel driver "
      "directly; 'allot doctor PROGRAM' checks one");
}

void check_environment(Findings* findings) {
  for (char* const* entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    for (const Variable& variable : kVariables) {
      if (!is_variable(name, variable)) continue;
      findings->push_back(
          {Verdict::kNote, "environment", harmless(text) + ": " + variable.meaning, ""});
    }
  }
  if (const char* disabled = std::getenv(ALLOT_ENV_DISABLE);
      disabled != nullptr && *disabled == '1') {
    findings->push_back({Verdict::kProblem, "environment",
                         "ALLOT_DISABLE=1: the libraries only forward", "unset ALLOT_DISABLE"});
  }
  if (const char* slice = std::getenv(ALLOT_ENV_SLICE); slice != nullptr) {
    const bool there = access(slice, R_OK) == 0;
    findings->push_back({there ? Verdict::kNote : Verdict::kProblem, "environment",
                         fmt::format("this shell is inside the slice {}{}", harmless(slice),
                                     there ? "" : ", which is gone"),
                         there ? "" : "leave this shell, or unset ALLOT_TENANT and LD_PRELOAD"});
  }
}

}  // namespace allot::cli
