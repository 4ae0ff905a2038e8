// allot-bench: the subcommands of `allot bench` as a program of their own, with nothing else in it.
// What it measures is then not disturbed by the rest, and it can be carried to a machine alone.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "bench/commands.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app("GPU workloads and measurements", "allot-bench");
  app.require_subcommand(1);
  int exit_status = 0;
  allot::bench::add_commands(app, &exit_status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_status;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (...) {
    std::fputs("allot-bench: out of memory or of descriptors\n", stderr);
    return 125;
  }
}
