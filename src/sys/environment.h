// Environment variables without getenv: a program may bring its own (bash does, and its getenv is
// not ready when a preloaded library first asks).
#pragma once

extern "C" {
extern char** environ;
}

namespace allot::sys {

// The value of `name`, or null. Points into the environment of the process: copy it before the
// program can change it. Any thread, as long as no other thread changes the environment; does not
// allocate.
inline const char* environment(const char* name) {
  if (environ == nullptr) return nullptr;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const char* at = *entry;
    const char* n = name;
    while (*n != '\0' && *at == *n) {
      ++at;
      ++n;
    }
    if (*n == '\0' && *at == '=') return at + 1;
  }
  return nullptr;
}

}  // namespace allot::sys
