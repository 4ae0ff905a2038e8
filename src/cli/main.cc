// allot: shares one GPU server. Everything is in src/cli/app.cc and the file of each subcommand.
#include "cli/commands.h"

int main(int argc, char** argv) {
  return allot::cli::run_command(argc, argv);
}
