// Adds the variables of the slice that the new environment lacks. Puts back only our own entries of
// LD_PRELOAD and LD_LIBRARY_PATH, before all others.
#include "shim/entry/child_environment.h"

#include <string_view>

#include "abi/env.h"
#include "base/text.h"
#include "shim/process/own_files.h"
#include "shim/process/start_environment.h"

namespace allot::shim {
namespace {

constexpr std::string_view kPreload = "LD_PRELOAD";
constexpr std::string_view kLibraryPath = "LD_LIBRARY_PATH";

// Part of a text; substr would link in the exception that it can throw.
std::string_view part(std::string_view text, size_t begin, size_t end) {
  if (end > text.size()) end = text.size();
  if (begin > end) begin = end;
  return {text.data() + begin, end - begin};
}

std::string_view name_of(const char* entry) {
  const std::string_view text(entry);
  return part(text, 0, text.find('='));
}

// The entry of that name in `envp`, or null.
const char* find(char* const* envp, std::string_view name) {
  for (; envp != nullptr && *envp != nullptr; ++envp) {
    if (name_of(*envp) == name) return *envp;
  }
  return nullptr;
}

std::string_view value_of(const char* entry) {
  if (entry == nullptr) return {};
  const std::string_view text(entry);
  return part(text, name_of(entry).size() + 1, text.size());
}

// Removes the first element of a list; LD_PRELOAD is separated by spaces or colons.
std::string_view next_element(std::string_view* list) {
  const size_t begin = list->find_first_not_of(" :");
  if (begin == std::string_view::npos) {
    *list = {};
    return {};
  }
  const size_t end = list->find_first_of(" :", begin);
  const std::string_view element = part(*list, begin, end);
  *list = part(*list, end, list->size());
  return element;
}

bool contains(std::string_view list, std::string_view wanted) {
  while (!list.empty()) {
    if (next_element(&list) == wanted) return true;
  }
  return false;
}

bool is_ours(std::string_view element) {
  const std::string_view folder(own_folder());
  const size_t slash = element.rfind('/');
  if (folder.empty() || slash == std::string_view::npos) return false;
  return part(element, 0, slash) == folder;
}

// Calls visit(element) for each entry of ours that is in `start` and not in `now`.
template <class Visit>
void each_lost(const char* start, std::string_view now, bool folders, Visit visit) {
  std::string_view list = start != nullptr ? std::string_view(start) : std::string_view();
  while (!list.empty()) {
    const std::string_view element = next_element(&list);
    if (element.empty()) continue;
    const bool ours = folders ? element == std::string_view(own_folder()) : is_ours(element);
    if (ours && !contains(now, element)) visit(element);
  }
}

// Bytes of "NAME=lost:rest" with its NUL, 0 when nothing was lost.
uint32_t restored_bytes(std::string_view name, const char* start, std::string_view now,
                        bool folders) {
  uint64_t lost = 0;
  each_lost(start, now, folders, [&lost](std::string_view element) { lost += element.size() + 1; });
  if (lost == 0) return 0;
  const uint64_t bytes = name.size() + 1 + lost + now.size() + 1;
  return bytes > UINT32_MAX ? UINT32_MAX : static_cast<uint32_t>(bytes);
}

char* restore(std::string_view name, const char* start, std::string_view now, bool folders,
              char* out) {
  TextBuf text(out, restored_bytes(name, start, now, folders));
  text.text(name).put('=');
  bool first = true;
  // Folders of ours go first; libraries of ours behind the program's own, which wrap calls that
  // reach us.
  if (!folders && !now.empty()) {
    text.text(now);
    first = false;
  }
  each_lost(start, now, folders, [&](std::string_view element) {
    if (!first) text.put(':');
    text.text(element);
    first = false;
  });
  if (folders && !now.empty()) text.put(':').text(now);
  return out;
}

// Whether to add the variables of the slice: not when the new environment names a slice itself.
bool wants_variables(char* const* envp) {
  return find(envp, ALLOT_ENV_SLICE) == nullptr;
}

}  // namespace

EnvironmentPlan plan_environment(char* const* envp) {
  const StartEnvironment& start = start_environment();
  EnvironmentPlan plan;
  if (!start.carries_slice || start.disabled) return plan;
  if (value_of(find(envp, ALLOT_ENV_DISABLE)) == "1") return plan;
  uint32_t entries = 0;
  for (char* const* at = envp; at != nullptr && *at != nullptr; ++at) ++entries;
  uint32_t missing = 0;
  if (wants_variables(envp)) {
    for (uint32_t i = 0; i < start.count; ++i) {
      if (find(envp, name_of(start.variables[i])) == nullptr) ++missing;
    }
  }
  const uint32_t preload =
      restored_bytes(kPreload, start.preload, value_of(find(envp, kPreload)), false);
  const uint32_t path =
      restored_bytes(kLibraryPath, start.library_path, value_of(find(envp, kLibraryPath)), true);
  plan.needed = missing > 0 || preload > 0 || path > 0;
  plan.entries = entries + missing + 3;
  plan.text_bytes = preload + path;
  return plan;
}

void complete_environment(char* const* envp, const EnvironmentPlan& plan, char** out, char* text) {
  const StartEnvironment& start = start_environment();
  const std::string_view preload = value_of(find(envp, kPreload));
  const std::string_view path = value_of(find(envp, kLibraryPath));
  const uint32_t preload_bytes = restored_bytes(kPreload, start.preload, preload, false);
  const uint32_t path_bytes = restored_bytes(kLibraryPath, start.library_path, path, true);
  char** const end = out + plan.entries - 1;
  if (preload_bytes > 0) *out++ = restore(kPreload, start.preload, preload, false, text);
  if (path_bytes > 0)
    *out++ = restore(kLibraryPath, start.library_path, path, true, text + preload_bytes);
  for (char* const* at = envp; at != nullptr && *at != nullptr && out < end; ++at) {
    if (preload_bytes > 0 && name_of(*at) == kPreload) continue;
    if (path_bytes > 0 && name_of(*at) == kLibraryPath) continue;
    *out++ = *at;
  }
  for (uint32_t i = 0; wants_variables(envp) && i < start.count && out < end; ++i) {
    if (find(envp, name_of(start.variables[i])) == nullptr)
      *out++ = const_cast<char*>(start.variables[i]);
  }
  *out = nullptr;
}

}  // namespace allot::shim
