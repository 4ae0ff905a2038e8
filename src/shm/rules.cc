// See rules.h. A line is at most kLine bytes; a file at most kFile; there may be kFiles of them.
#include "shm/rules.h"

#include <sys/stat.h>

#include <string_view>

#include "base/text.h"
#include "base/units.h"
#include "shm/slice_file.h"

namespace allot::shm {
namespace {

constexpr const char* kMain = "/etc/allot/allot.conf";
constexpr const char* kFolder = "/etc/allot/limits.d";
constexpr uint32_t kLine = 256;
constexpr uint32_t kFile = 64 * 1024;
constexpr uint32_t kFiles = 64;
constexpr uint32_t kName = 64;

constexpr const char* kNames[kRuleKeys] = {"gpu-mem",      "gpu-share",     "gpu-max",
                                           "priority",     "most-gpu-mem",  "most-gpu-share",
                                           "most-gpu-max", "most-priority", "most-slices"};

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r'))
    text.remove_suffix(1);
  return text;
}

// substr() throws, which needs libstdc++.
std::string_view part(std::string_view text, size_t from, size_t to) {
  return {text.data() + from, to - from};
}

Result<uint64_t> parse_number(std::string_view text) {
  const char* at = text.data();
  uint64_t value = 0;
  if (!read_u64(&at, text.data() + text.size(), &value) || at != text.data() + text.size())
    return fail(Errc::kBadValue);
  return value;
}

Result<uint64_t> parse_value(uint32_t key, std::string_view text) {
  const bool none = text == "none";
  switch (key) {
    case kRuleGpuMem:
    case kRuleMostGpuMem: {
      if (none) return uint64_t{ALLOT_UNLIMITED};
      const Result<uint64_t> bytes = parse_size(text);
      // Less than the driver's own granule cannot be meant: 8 is eight bytes, not 8G.
      if (!bytes || *bytes < 1024 * 1024) return fail(Errc::kBadValue);
      return bytes;
    }
    case kRulePriority:
    case kRuleMostPriority:
      if (text == "high") return uint64_t{ALLOT_PRIORITY_HIGH};
      if (text == "normal") return uint64_t{ALLOT_PRIORITY_NORMAL};
      if (text == "low") return uint64_t{ALLOT_PRIORITY_LOW};
      return fail(Errc::kBadValue);
    case kRuleMostSlices:
      return none ? Result<uint64_t>(uint64_t{ALLOT_UNLIMITED}) : parse_number(text);
    default: {
      if (none) return uint64_t{0};
      const Result<uint32_t> permille = parse_percent(text);
      if (!permille) return fail(Errc::kBadValue);
      return uint64_t{*permille};
    }
  }
}

constexpr const char* kWrite[kRuleKeys] = {"a size such as 8G, or none",
                                           "a percentage such as 30, or none",
                                           "a percentage such as 50, or none",
                                           "high, normal or low",
                                           "a size such as 8G, or none",
                                           "a percentage such as 30, or none",
                                           "a percentage such as 50, or none",
                                           "high, normal or low",
                                           "a number, or none"};

// One pass over the files. `line` gets each setting; it says what is wrong with it in `problem`.
struct Pass {
  Result<void> (*line)(Pass& pass, std::string_view section, uint32_t key, std::string_view value);
  void* context;
  char* problem;  // 256 bytes
  char source[160];
  char section[kLine];
};

Result<void> wrong(Pass& pass, std::string_view what, std::string_view text,
                   std::string_view write) {
  TextBuf(pass.problem, 256)
      .text(pass.source)
      .text(": '")
      .text({text.data(), text.size() < 64 ? text.size() : 64})
      .text("' ")
      .text(what)
      .text(write.empty() ? "" : "; write ")
      .text(write);
  return fail(Errc::kBadValue);
}

Result<void> take_section(Pass& pass, std::string_view text) {
  const std::string_view inside =
      text.size() > 2 && text.back() == ']' ? trimmed(part(text, 1, text.size() - 1)) : "";
  const bool known = inside == "all" || inside.starts_with("user ") || inside.starts_with("group ");
  if (!known) return wrong(pass, "is no section", text, "[all], [user NAME] or [group NAME]");
  TextBuf(pass.section, sizeof(pass.section)).text(inside);
  return {};
}

Result<void> take_line(Pass& pass, std::string_view text) {
  if (const size_t comment = text.find('#'); comment != std::string_view::npos)
    text = part(text, 0, comment);
  text = trimmed(text);
  if (text.empty()) return {};
  if (text.front() == '[') return take_section(pass, text);
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) return wrong(pass, "sets nothing", text, "KEY = VALUE");
  if (pass.section[0] == '\0') return wrong(pass, "is in no section", text, "[all] above it");
  const std::string_view key = trimmed(part(text, 0, equals));
  const std::string_view value = trimmed(part(text, equals + 1, text.size()));
  for (uint32_t i = 0; i < kRuleKeys; ++i) {
    if (key != kNames[i]) continue;
    if (!parse_value(i, value)) return wrong(pass, "cannot be read", text, kWrite[i]);
    return pass.line(pass, pass.section, i, value);
  }
  return wrong(pass, "is no setting of allot.conf(5)", key, "");
}

Result<void> cannot_read(Pass& pass, const char* path, std::string_view why, Error error) {
  TextBuf(pass.problem, 256).text(path).text(": ").text(why);
  return tl::unexpected<Error>(error);
}

Result<void> read_text(Pass& pass, const char* path, std::string_view text) {
  pass.section[0] = '\0';
  uint32_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const size_t length = end == std::string_view::npos ? text.size() : end;
    TextBuf(pass.source, sizeof(pass.source)).text(path).put(':').u64(++number);
    const std::string_view line(text.data(), length);
    if (length >= kLine) return wrong(pass, "is too long", line, "at most 255 bytes a line");
    if (auto taken = take_line(pass, line); !taken) return taken;
    text.remove_prefix(length < text.size() ? length + 1 : length);
  }
  return {};
}

Result<void> read_one(Pass& pass, const char* path) {
  auto fd = sys::open_file(sys::Root{}, path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
  if (!fd) {
    if (fd.error().code == Errc::kNotFound) return {};
    return cannot_read(pass, path, "cannot be opened", fd.error());
  }
  auto info = sys::info_of(fd->get());
  if (!info) return cannot_read(pass, path, "cannot be read", info.error());
  if (!S_ISREG(info->mode) || !sys::means_root(info->uid) ||
      (info->mode & (S_IWGRP | S_IWOTH)) != 0) {
    return cannot_read(pass, path, "must be root's, and nobody else may write it",
                       {Errc::kNoPermission, 0});
  }
  auto memory = sys::map_memory(kFile);
  if (!memory) return cannot_read(pass, path, "cannot be read", memory.error());
  auto have = sys::read_at(fd->get(), *memory, kFile, 0);
  Result<void> read;
  if (!have) {
    read = cannot_read(pass, path, "cannot be read", have.error());
  } else if (*have == kFile) {
    read = cannot_read(pass, path, "is longer than 64 KiB", {Errc::kBadValue, 0});
  } else {
    read = read_text(pass, path, {static_cast<const char*>(*memory), *have});
  }
  sys::unmap(*memory, kFile);
  return read;
}

struct FileList {
  char names[kFiles][kName];
  uint32_t count;
  bool too_many;
};

bool before(const char* a, const char* b) {
  return std::string_view(a) < std::string_view(b);
}

// Keeps them in order.
bool take_name(void* context, const char* name) {
  FileList& list = *static_cast<FileList*>(context);
  const std::string_view text(name);
  if (text.front() == '.' || !text.ends_with(".conf")) return true;
  if (list.count == kFiles || text.size() >= kName) {
    list.too_many = true;
    return false;
  }
  uint32_t at = list.count++;
  for (; at > 0 && before(name, list.names[at - 1]); --at)
    __builtin_memcpy(list.names[at], list.names[at - 1], kName);
  TextBuf(list.names[at], kName).text(text);
  return true;
}

Result<void> read_all(Pass& pass) {
  if (auto read = read_one(pass, kMain); !read) return read;
  auto folder = sys::open_file(sys::Root{}, kFolder, O_RDONLY | O_DIRECTORY);
  if (!folder) {
    if (folder.error().code == Errc::kNotFound) return {};
    return cannot_read(pass, kFolder, "cannot be opened", folder.error());
  }
  FileList list = {};
  (void)sys::list_folder(folder->get(), take_name, &list);
  if (list.too_many)
    return cannot_read(pass, kFolder, "has more than 64 files, or a name of 64 bytes",
                       {Errc::kBadValue, 0});
  for (uint32_t i = 0; i < list.count; ++i) {
    char path[128];
    TextBuf(path, sizeof(path)).text(kFolder).put('/').text(list.names[i]);
    if (auto read = read_one(pass, path); !read) return read;
  }
  return {};
}

struct Wanted {
  const RulesFor* who;
  Rules* rules;
};

// The rank of a section for `who`; 0 = it does not name them.
Result<uint32_t> rank_of(const RulesFor& who, std::string_view section) {
  if (section == "all") return who.root ? 0u : 1u;
  const bool group = section.starts_with("group ");
  const std::string_view name = trimmed(part(section, group ? 6 : 5, section.size()));
  if (group && who.root) return 0u;
  char text[kName];
  TextBuf copy(text, sizeof(text));
  copy.text(name);
  if (copy.cut() || name.empty()) return fail(Errc::kBadValue);
  uint32_t id = 0;
  if (const Result<uint64_t> number = parse_number(name)) {
    id = static_cast<uint32_t>(*number);
  } else {
    const Result<uint32_t> found = who.find(who, group, text);
    if (!found && found.error().code == Errc::kNotFound) return 0u;
    if (!found) return found;
    id = *found;
  }
  if (!group) return id == who.uid ? 3u : 0u;
  for (uint32_t i = 0; i < who.gid_count; ++i) {
    if (who.gids[i] == id) return 2u;
  }
  return 0u;
}

Result<void> take_rule(Pass& pass, std::string_view section, uint32_t key, std::string_view value) {
  const Wanted& wanted = *static_cast<Wanted*>(pass.context);
  const Result<uint32_t> rank = rank_of(*wanted.who, section);
  if (!rank) return wrong(pass, "cannot be looked up", section, "its number");
  Rule& rule = wanted.rules->of[key];
  if (*rank == 0 || *rank < rule.rank) return {};
  rule.set = true;
  rule.rank = *rank;
  rule.value = *parse_value(key, value);
  TextBuf(rule.source, sizeof(rule.source)).text(pass.source);
  wanted.rules->any = true;
  return {};
}

struct Visit {
  void (*visit)(void* context, const RuleLine& line);
  void* context;
};

}  // namespace

bool Rules::limits() const {
  const bool memory = value(kRuleGpuMem, ALLOT_UNLIMITED) != ALLOT_UNLIMITED ||
                      value(kRuleMostGpuMem, ALLOT_UNLIMITED) != ALLOT_UNLIMITED;
  return memory || value(kRuleGpuShare, 0) != 0 || value(kRuleGpuMax, 0) != 0 ||
         value(kRuleMostGpuMax, 0) != 0;
}

const char* rule_name(uint32_t key) {
  return key < kRuleKeys ? kNames[key] : "?";
}

uint32_t priority_rank(uint64_t priority) {
  return priority == ALLOT_PRIORITY_HIGH ? 2 : priority == ALLOT_PRIORITY_LOW ? 0 : 1;
}

Result<void> read_rules_for(const RulesFor& who, Rules* out) {
  *out = {};
  Wanted wanted{&who, out};
  Pass pass{take_rule, &wanted, out->problem, {}, {}};
  return read_all(pass);
}

Result<void> visit_rules(void (*visit)(void* context, const RuleLine& line), void* context,
                         char* problem) {
  Visit state{visit, context};
  const auto each = [](Pass& pass, std::string_view, uint32_t key, std::string_view value) {
    char text[kLine];
    TextBuf(text, sizeof(text)).text(value);
    const Visit& to = *static_cast<Visit*>(pass.context);
    to.visit(to.context, {pass.source, pass.section, kNames[key], text});
    return Result<void>{};
  };
  Pass pass{each, &state, problem, {}, {}};
  return read_all(pass);
}

uint32_t slices_of(const char* folder, uint32_t uid, const char* except_path) {
  struct State {
    uint32_t uid;
    const char* except;
    uint32_t count;
  } state{uid, except_path, 0};
  list_slices(
      folder,
      [](void* context, const char* path) {
        State& s = *static_cast<State*>(context);
        if (s.except != nullptr && std::string_view(s.except) == path) return;
        auto slice = open_slice(path, false);
        if (!slice) return;
        if (slice->owner_uid == s.uid && slice_in_use(*slice)) ++s.count;
        unmap(*slice);
      },
      &state);
  return state.count;
}

}  // namespace allot::shm
