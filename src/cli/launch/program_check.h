// Which file will really be executed, and whether a preloaded library reaches it.
//
// The C library's dynamic loader obeys LD_PRELOAD. A set-user-ID program ignores it, and a program
// of another C library or word size cannot load our libraries. `run` fails closed by default, so it
// must know this before the program starts.
#pragma once

#include <string>

namespace allot::cli {

// The file that execvp(3) would execute for `name` with this `path` (the value of PATH), by the
// rules of env(1). Throws a Failure: exit 127 when there is none, 126 when the user may not execute
// it.
std::string resolve_program(const std::string& name, const char* path);

enum class Preload {
  kWorks,
  kStatic,        // no dynamic loader: ignores it (and loads no driver), but its children obey
  kSetId,         // gains privileges: the loader drops LD_PRELOAD, for its children too
  kOtherLoader,   // musl or another C library: the program would not even start
  kOtherMachine,  // a 32-bit program, or one of another processor
};

// Checks the ELF header (of the interpreter, for a script). Unreadable or unknown = kWorks: exec
// decides then. Any thread; allocates; reads files.
Preload preload_effect(const std::string& path);

}  // namespace allot::cli
