// allot doctor: which limits this machine can enforce, and why it cannot enforce the rest.
#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "abi/env.h"
#include "cli/commands.h"
#include "cli/doctor/doctor_checks.h"
#include "cli/failure.h"
#include "cli/output.h"

namespace allot::cli {
namespace {

using nlohmann::json;

struct DoctorOptions {
  bool as_json = false;
  std::string sim, program;
};

const char* verdict_text(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGood:
      return "ok";
    case Verdict::kNote:
      return "note";
    default:
      return "problem";
  }
}

Findings examine(const DoctorOptions& options) {
  Findings findings;
  DriverFiles driver;
  Inventory inventory;
  only_look();
  try {
    driver = options.sim.empty() ? find_driver() : use_sim(options.sim);
    inventory = ask_driver(driver);
    check_driver(driver, inventory, &findings);
    check_exports(driver, &findings);
  } catch (const Failure& failure) {
    if (failure.exit_status() == kExitUsage) throw;
    findings.push_back({Verdict::kProblem, "driver", failure.line(), ""});
  }
  check_shim(&findings);
  check_region(&findings);
  check_rules(&findings);
  check_mps(&findings);
  check_preload(options.program, &findings);
  check_environment(&findings);
  check_memory(!inventory.gpus.empty(), &findings);
  check_time(inventory, &findings);
  return findings;
}

// In lines beside the verdict and the check.
std::string indented(const std::string& text) {
  constexpr size_t kLeft = 22;
  if (!has_width()) return text;  // for grep
  const size_t width = screen_width();
  const std::string lines = wrapped(text, width > kLeft + 20 ? width - kLeft : 20, 0);
  std::string out;
  for (const char c : lines) {
    out += c;
    if (c == '\n') out.append(kLeft, ' ');
  }
  return out;
}

void print_text(const Findings& findings, size_t problems) {
  std::string text;
  for (const Finding& finding : findings) {
    const std::string verdict = verdict_text(finding.verdict);
    const Colour colour = finding.verdict == Verdict::kGood   ? Colour::kGreen
                          : finding.verdict == Verdict::kNote ? Colour::kYellow
                                                              : Colour::kRed;
    text += coloured(colour, verdict) + std::string(9 - verdict.size(), ' ');
    text +=
        finding.check +
        std::string(std::max<size_t>(13, finding.check.size() + 1) - finding.check.size(), ' ') +
        indented(harmless(finding.found)) + "\n";
    if (!finding.advice.empty())
      text += std::string(22, ' ') + indented("-> " + finding.advice) + "\n";
  }
  text += problems == 0 ? "no problem found\n"
                        : fmt::format("{} problem{} found\n", problems, problems == 1 ? "" : "s");
  print(text);
}

int doctor(const DoctorOptions& options) {
  const Findings findings = examine(options);
  size_t problems = 0;
  json list = json::array();
  for (const Finding& finding : findings) {
    problems += finding.verdict == Verdict::kProblem ? 1 : 0;
    list.push_back({{"check", finding.check},
                    {"verdict", verdict_text(finding.verdict)},
                    {"found", finding.found},
                    {"advice", finding.advice}});
  }
  if (options.as_json) {
    print_json({{"problems", problems}, {"findings", list}});
  } else {
    print_text(findings, problems);
  }
  return problems == 0 ? kExitOk : kExitProblems;
}

}  // namespace

void add_doctor(CLI::App& app, int* exit_status) {
  CLI::App* sub = app.add_subcommand("doctor", "check what works on this machine");
  const auto options = std::make_shared<DoctorOptions>();
  sub->add_option("program", options->program,
                  "also check whether this program can be held to a slice")
      ->type_name("PROGRAM");
  sub->add_flag("--json", options->as_json, "machine-readable output; fields in docs/commands.md");
  sub->add_option("--sim", options->sim, "check the software GPU instead of the machine's driver")
      ->type_name("[=SPEC]");
  sub->footer(
      "Exit status: 0 no problem, 1 problems found.\n"
      "\n"
      "Examples:\n"
      "  allot doctor\n"
      "  allot doctor python3");
  sub->callback([options, exit_status] { *exit_status = doctor(*options); });
}

}  // namespace allot::cli
