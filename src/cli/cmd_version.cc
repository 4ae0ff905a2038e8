// allot version: which allot this is, so that a report of a fault can say it.
#include <sys/utsname.h>

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "abi/region.h"
#include "cli/commands.h"
#include "cli/generated/stamp.h"
#include "cli/output.h"

#ifndef ALLOT_VERSION
#define ALLOT_VERSION "unknown"
#endif
#ifndef ALLOT_BUILD
#define ALLOT_BUILD "unknown"
#endif

namespace allot::cli {
namespace {

void version(bool as_json) {
  utsname machine = {};
  uname(&machine);
  const std::string region = fmt::format("{}.{}", ALLOT_REGION_MAJOR, ALLOT_REGION_MINOR);
  if (as_json) {
    print_json({{"version", ALLOT_VERSION},
                {"commit", ALLOT_COMMIT},
                {"build", ALLOT_BUILD},
                {"compiler", __VERSION__},
                {"machine", machine.machine},
                {"region_version", region}});
    return;
  }
  print(fmt::format("{}\nbuild {}, compiler {}, {}; slice files of version {}\n", version_text(),
                    ALLOT_BUILD, __VERSION__, machine.machine, region));
}

}  // namespace

std::string version_text() {
  return "allot " ALLOT_VERSION " (commit " ALLOT_COMMIT ")";
}

void add_version(CLI::App& app, int* exit_status) {
  CLI::App* sub = app.add_subcommand("version", "print version, commit and build");
  const auto as_json = std::make_shared<bool>(false);
  sub->add_flag("--json", *as_json, "print JSON; docs/commands.md lists the fields");
  sub->footer(
      "'-dirty' behind the commit means: built with uncommitted changes.\n"
      "\n"
      "Examples:\n"
      "  allot version\n"
      "  allot version --json");
  sub->callback([as_json, exit_status] {
    version(*as_json);
    *exit_status = 0;
  });
}

}  // namespace allot::cli
