// What will really be executed, and whether a preloaded library reaches it.
//
// LD_PRELOAD is obeyed by the dynamic loader of the C library. A set-user-ID program ignores it, and a
// program of another C library or word size cannot load ours. `run` is closed by default, so it must
// know before the program starts.
#pragma once

#include <string>

namespace allot::cli {

// The file that execvp(3) would take for `name` with this `path` (the value of PATH), by the rules of
// env(1). Throws a Failure: exit 127 when there is none, 126 when it is there but may not be executed.
std::string resolve_program(const std::string& name, const char* path);

enum class Preload {
  kWorks,
  kStatic,  // no dynamic loader: ignores it, but its children obey (it cannot load a driver itself)
  kSetId,   // gains privileges: the loader drops LD_PRELOAD, for its children too
  kOtherLoader,   // musl or another C library: the program would not even start
  kOtherMachine,  // a 32-bit program, or one of another processor
};

// Looks at the ELF header (of the interpreter, for a script). Unreadable or unknown = kWorks: then
// exec decides. Any thread; allocates; reads files.
Preload preload_effect(const std::string& path);

}  // namespace allot::cli
