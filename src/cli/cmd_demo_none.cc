// allot demo in a build without src/bench, whose workloads it runs.
#include "cli/commands.h"
#include "cli/failure.h"

namespace allot::cli {

void add_demo(CLI::App& app, int*) {
  app.add_subcommand("demo", "show two programs on one software GPU, each held to its memory")
      ->callback([] {
        refuse("demo: this build of allot has no 'bench', which the demo runs; build it whole");
      });
}

}  // namespace allot::cli
